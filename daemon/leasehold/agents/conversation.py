"""What the adapters of real agents share: what is known of a conversation so far, and how it ended. If it fails, one run fails.

An adapter translates one JSON line into events of the one vocabulary; the line itself stands beside them in `raw`. A line that
nobody here knows becomes an event of kind `unknown`: a new version of an agent says new things, and none of them ends a run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from leasehold.agents.command import REASONS
from leasehold.agents.heads import begun
from leasehold.models import Event, Outcome, Run, Verdict

Said = dict[str, Any]
OURS: dict[str, Outcome] = {"turn_interrupted": "blocked", "protocol": "failed"}
"""Reasons that an adapter finds; the agent itself may not name them."""
OPEN_LIMIT = 1000
"""Tools at work at once that are told apart."""
REQUESTS_LIMIT, ID_LIMIT = 1000, 400
"""Ids of its requests that are remembered, and the characters of one."""
TOO_LONG = "this is too long to be understood here"
"""Said to whoever asks for something at such a length."""
WORDS_LIMIT = 64 << 10
"""Characters of the agent's last words that go into the result; the event has them all."""


@dataclass
class Known:
    """All that a later line or the verdict may need; JSON can say it."""

    resumed: bool = False
    heard: int = 0
    session: str | None = None
    words: str | None = None
    open: list[str] = field(default_factory=list)
    worked: int = 0
    denied: list[str] = field(default_factory=list)  # since a tool last ended well
    refused: int = 0  # answers of the backend in a row that it does not know our key
    resets_at: Any = None
    ended: Said | None = None  # ok, reason, message
    requests: list[str] = field(default_factory=list)  # ids of what it has asked so far


class Conversation:
    """A fold over the JSON lines of an agent. Its dialect is in `translate`."""

    rejects_in_silence = True
    """A session that it does not know it answers by leaving."""

    def __init__(self, run: Run) -> None:
        self.known = Known(resumed=run.session is not None)

    @property
    def done(self) -> bool:
        """It has said how it ended, or will only try in vain from here on."""
        return self.known.ended is not None

    @property
    def in_tool(self) -> bool:
        """A tool was started and has not ended."""
        return bool(self.known.open)

    def receive(self, line: bytes) -> Sequence[Event] | None:
        """Events, the last of which has the line as it was, unless it is a piece of a message; None: it is no line of this protocol."""
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or not self.speaks(said):
            return None
        self.known.heard += 1
        events = self._understood(said)
        if not events:
            return ()
        if events[-1].kind == "delta":  # it leaves no event that the line could stand beside
            return tuple(events)
        return (*events[:-1], _beside(events[-1], said))

    def glimpse(self, head: bytes) -> Sequence[Event]:
        """The same of a line of which there is only the beginning."""
        said = begun(head)
        if said is None or not self.speaks(said):
            return ()
        self.known.heard += 1
        try:
            return tuple(self.guess(said))
        except (KeyError, TypeError, ValueError, AttributeError):  # what would be needed lies behind
            return ()

    def guess(self, said: Said) -> Sequence[Event]:
        """What a message can only mean that begins so. Whatever it asks is refused: nobody could see what they allow."""
        raise NotImplementedError

    def _understood(self, said: Said) -> Sequence[Event]:
        try:
            events = self.translate(said)
            if not all(isinstance(event.message, str | None) for event in events):
                raise TypeError("its words are no text")
            return events
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:  # a known type of another shape: kept, not fatal
            return (unknown(said, f"{type(error).__name__}: {error}"),)

    def name(self, ident: object) -> str:
        """By which its request is known, of the line that is read just now. An id may be used again; a name is not, and not in a replay."""
        ident, seen = str(ident), self.known.requests
        if ident in seen or "#" in ident or len(ident) > ID_LIMIT or len(seen) >= REQUESTS_LIMIT:
            return f"{ident}#{self.known.heard}"
        seen.append(ident)
        return ident

    def speaks(self, said: Said) -> bool:
        """Is it a line of this protocol?"""
        return isinstance(said.get("type"), str)

    def translate(self, said: Said) -> Sequence[Event]:
        """The dialect. May raise on what has not the shape it should have."""
        raise NotImplementedError

    def freeze(self) -> Mapping[str, Any] | None:
        """All that is known."""
        return asdict(self.known)

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.known = Known(**state)

    def verdict(self, exit_code: int) -> Verdict:
        """What it said of its end first; then whether its exit code, its words and its tools agree with that (X24)."""
        known = self.known
        if known.ended is None:
            return self._without_result(exit_code)
        value = {"text": (known.words or "")[:WORDS_LIMIT] or None, "session": known.session}
        if not known.ended["ok"]:
            return self._failed(known.ended, value)
        if exit_code != 0:
            return Verdict(
                "failed", "disagreement", f"it said that all went well, and exited with code {exit_code}", value
            )
        if known.denied:
            message = f"it said that all went well, but was not allowed to use: {', '.join(known.denied[:5])}"
            return Verdict("failed", "disagreement", message, value)
        if not known.words and not known.worked:
            return Verdict("failed", "empty_output", "it ended well, said nothing and used no tool", value)
        return Verdict("succeeded", result=value)

    def _failed(self, ended: Said, value: Said) -> Verdict:
        reason = ended.get("reason")
        if self.known.resets_at is not None:
            value = {**value, "resets_at": self.known.resets_at}
        if reason in (known := {**REASONS, **OURS}):
            return Verdict(known[reason], reason, ended["message"], value)
        return Verdict("failed", "agent_error", ended["message"], value)

    def _without_result(self, exit_code: int) -> Verdict:
        known = self.known
        value = {"session": known.session} if known.session else None
        if self.rejects_in_silence and known.resumed and not known.heard and exit_code != 0:
            message = f"it would not go on with its session: it exited with code {exit_code} before it said anything"
            return Verdict("failed", "session_rejected", message, value)
        if exit_code != 0:
            return Verdict("failed", "exit_code", f"exited with code {exit_code} before it said how it ended", value)
        return Verdict("failed", "protocol", "it left, with exit code 0, before it said how it ended", value)

    def end(self, *, ok: bool, reason: str | None = None, message: str | None = None) -> Event:
        """It says how it ended."""
        self.known.ended = {"ok": ok, "reason": reason, "message": str(message or "the agent said that it failed")}
        self.known.open.clear()
        data = {"ok": ok, **({"reason": reason} if reason else {})}
        return Event("result", message, data, "info" if ok else "error")

    def begin(self, session: object) -> Event:
        """It says which conversation this is."""
        if not isinstance(session, str):
            raise TypeError("a session's id is a string")
        self.known.session = session
        return Event("session", None, {"id": session})

    def speak(self, text: object, **more: Any) -> Event:
        """It says something to whoever asked."""
        if not isinstance(text, str):
            raise TypeError("its words are no text")
        self.known.words = text
        return Event("message", text, {"role": "agent", **more})

    def start_tool(self, ident: str, name: str, what: str | None) -> Event:
        """It uses a tool."""
        if len(self.known.open) < OPEN_LIMIT and ident not in self.known.open:
            self.known.open.append(ident)
        return Event("tool_call", what or name, {"id": ident, "name": name, "status": "started"})

    def finish_tool(self, ident: str, name: str | None, *, ok: bool | None, **more: Any) -> Event:
        """The tool has ended, one way or the other; None: nobody knows which."""
        if ident in self.known.open:
            self.known.open.remove(ident)
        if ok is not False:
            self.known.worked += 1
        if ok:
            self.known.denied.clear()
        how = {} if ok is None else {"ok": ok}
        data = {"id": ident, **({"name": name} if name else {}), "status": "finished", **how, **more}
        return Event("tool_call", name, data, "warning" if ok is False else "info")


def unknown(said: Said, why: str | None = None) -> Event:
    """Kept as it is."""
    return Event("unknown", why or str(said.get("type")), {}, "debug")


def _beside(event: Event, said: Said) -> Event:
    return Event(event.kind, event.message, {**event.data, "raw": said}, event.level, event.phase)
