"""Any agent of the Agent Client Protocol, spoken to over its stdin: JSON-RPC, one message a line. If it fails, one run fails.

What it is told is a plain dict on purpose: the protocol's own models would cost every daemon a third of a second and ten megabytes,
and lose an answer in which one word is new to them. That every message fits those models is a test.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leasehold.agents import acp_asks as asks
from leasehold.agents.acp_begin import Begins
from leasehold.agents.acp_errors import reason_of, reason_of_words, words_of
from leasehold.agents.acp_state import ASKED_LIMIT, AcpKnown
from leasehold.agents.conversation import TOO_LONG, Said, unknown
from leasehold.agents.heads import plain
from leasehold.models import Event, Verdict

NO_METHOD, BAD_PARAMS = -32601, -32602
STOPPED = {"max_turn_requests": "max_turns", "refusal": "refusal"}
"""Stop reasons that have a name of ours; any other that is not `end_turn` keeps its own."""


class Acp(Begins):
    """The dialect of ACP."""

    # what it says

    def receive(self, line: bytes) -> Sequence[Event] | None:
        """Events, the last of which has the line as it was; None: it is no line of this protocol."""
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or not _is_message(said):
            return None
        self.known.heard += 1
        told, self.known.notices = [_turn(*each) for each in self.known.notices], []
        events = [*told, *self._understood(said)]
        if not events or events[-1].kind == "delta":  # which is no event of its own: a message grows by it
            return tuple(events)
        last = events[-1]
        return (*events[:-1], Event(last.kind, last.message, {**last.data, "raw": said}, last.level, last.phase))

    def speaks(self, said: Said) -> bool:
        """Is it a message?"""
        return _is_message(said)

    def guess(self, said: Said) -> Sequence[Event]:
        """A request is refused, a tool is at work or has ended."""
        method = said.get("method")
        if method is not None and "id" in said:
            self._refuse(self.name(said["id"]), said["id"], BAD_PARAMS, TOO_LONG)
            return (unknown(said, f"{method}, which is refused: {TOO_LONG}"),)
        update = plain(said["params"]["update"]) if method == "session/update" else {}
        ours = update and said["params"]["sessionId"] == self.known.session
        return self.updated(update) if ours and str(update["sessionUpdate"]).startswith("tool_call") else ()

    def translate(self, said: Said) -> Sequence[Event]:
        """One message: an answer to us, a request, or news."""
        if "method" not in said:
            return self._answered(said)
        if "id" in said:
            return self._requested(said)
        if said["method"] == "session/update" and said["params"]["sessionId"] == (
            self.known.session or said["params"]["sessionId"]
        ):
            return self.updated(said["params"]["update"])
        if said["method"] == "$/cancel_request":
            return self._withdrawn(str(said["params"]["requestId"]))
        return (unknown(said, said["method"]),)

    def _requested(self, said: Said) -> Sequence[Event]:
        """It asks something; whatever it is, it gets an answer."""
        known, name = self.known, self.name(said["id"])
        known.past = False
        try:
            match said["method"]:
                case "session/request_permission":
                    told = self._told_tool(said["params"]["toolCall"])
                    event, ask = asks.permission(said, told[0], name)
                    events = [*told[1], event]
                case "elicitation/create":
                    event, ask = asks.question(said, name)
                    events = [event]
                case method:
                    self._refuse(name, said["id"], NO_METHOD, f"{method} is not offered here")
                    return (unknown(said, f"{method}, which was not offered"),)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._refuse(name, said["id"], BAD_PARAMS, f"it was not understood: {type(error).__name__}")
            return (unknown(said, f"{said['method']}: {type(error).__name__}: {error}"),)
        before = self._forget(str(said["id"]))  # it would take an answer to that for one to this
        if len(known.asked) >= ASKED_LIMIT:
            known.asked = {key: each for key, each in known.asked.items() if each["open"] or each.get("denied")}
        known.asked[name] = {**ask, "worked": known.worked}
        if known.cancelling:
            self.release(name)
        return [*known.close(), *before, *events]

    def _told_tool(self, call: Said) -> tuple[str, list[Event]]:
        """The name of the tool that it wants to use; it is told as begun before it is asked about."""
        ident = str(call["toolCallId"])
        tool = self._known_tool(ident, call)
        return tool["name"], [] if tool["told"] else [self.tell_tool(ident)]

    def _refuse(self, name: str, ident: Any, code: int, message: str) -> None:
        self.owe(f"reply:{name}", {"id": ident, "error": {"code": code, "message": message}})

    def _named(self, ident: str) -> str | None:
        """The newest that it has asked under this id."""
        asked = self.known.asked
        return next((name for name in reversed(asked) if str(asked[name]["id"]) == ident), None)

    def _withdrawn(self, ident: str) -> Sequence[Event]:
        name = self._named(ident)
        if name is None:
            return ()
        ask = self.known.asked[name]
        if ask["open"]:
            self.release(name)
        ask.pop("released", None)
        return (Event("withdrawn", None, {"id": name}),)

    def _forget(self, ident: str) -> Sequence[Event]:
        name = self._named(ident)
        if name is None:
            return ()
        ask = self.known.asked[name]
        was_open, ask["open"] = ask["open"], False
        for key in (ask.get("by", ""), f"reply:{name}"):
            self.taken(key)
        return (Event("withdrawn", None, {"id": name}),) if was_open or ask.pop("released", False) else ()

    def _answered(self, said: Said) -> Sequence[Event]:
        key, error, result = str(said["id"]), said.get("error"), said.get("result")
        result = result if isinstance(result, dict) else {}
        if key == "start" or (key.startswith("turn:") and not key.endswith("/steer")):
            return self._turn_over(key, result, error)
        if key in {"init", "open", "mode"}:
            return self._begun(key, result, error)
        if key.endswith("/steer"):
            injected = not error and result.get("outcome") == "injected"
            turn = int(key.removeprefix("turn:").removesuffix("/steer"))
            return (
                _turn(turn, "ended") if injected else _turn(turn, "refused", "its turn was over before it heard it"),
            )
        return (unknown(said, f"an answer to {key}"),)

    def _begun(self, key: str, result: Said, error: Any) -> Sequence[Event]:
        if error:
            return self.not_begun(key, error)
        try:
            match key:
                case "init":
                    return self.hello(result)
                case "open":
                    return self.opened(result)
            return self.start()
        except (KeyError, TypeError) as wrong:
            message = f"its answer to the step {key} was not understood: {type(wrong).__name__}: {wrong}"
            return (self.end(ok=False, reason="protocol", message=message),)

    def _turn_over(self, key: str, result: Said, error: Any) -> Sequence[Event]:
        """A prompt is answered; what is told depends on its words alone, for after a replay nothing else is known."""
        known = self.known
        dressed = self._dressed_up(result, error)
        words = words_of(error) if error else ""
        refused = bool(
            known.piece and known.piece["kind"] == "message" and "".join(known.piece["parts"]).strip() in words
        )
        events = known.close(failed=dressed is not None or refused)
        events += self.abandoned()
        events += [
            Event("withdrawn", None, {"id": ident}) for ident, ask in known.asked.items() if self._forgotten(ask)
        ]
        events += [*self.used(result), dressed or self._result(result, error)]
        ended = [int(key.removeprefix("turn:"))] if key != "start" else []
        events += [_turn(turn, "ended") for turn in (*ended, *known.interrupts)]
        known.answered.append(key)
        known.past = False
        known.interrupts, known.cancelling = [], False
        if known.turn in {key, None}:
            known.turn = None
            events += self._next()
        return events

    def _forgotten(self, ask: Said) -> bool:
        """Nobody has answered it, and nobody need any more."""
        forgotten = bool(ask["open"] or ask.pop("released", False))
        ask["open"] = False
        return forgotten

    def _next(self) -> list[Event]:
        """What waited for this turn to be over is said now, unless no more is to be expected of it."""
        known = self.known
        waiting, known.later = known.later, []
        waiting = [each for each in waiting if each[0] not in known.answered]
        if not waiting:
            return []
        assert known.ended is not None
        if known.ended["ok"] or known.ended.get("reason") == "cancelled":
            known.later = waiting[1:]
            self.prompt(*waiting[0])
            return []
        why = f"the turn before it failed: {known.ended['message']}"
        return [_turn(int(key.removeprefix("turn:")), "refused", why) for key, _ in waiting]

    def _dressed_up(self, result: Said, error: Any) -> Event | None:
        """An error that looks like a good end: the agent's last words are its provider's."""
        known = self.known
        if error or known.trouble is None or not self.quirks.error_as_words or result.get("stopReason") != "end_turn":
            return None
        said = "".join(known.piece["parts"]).strip() if known.piece else ""
        told = said or str(known.trouble.get("words") or "its provider failed")
        reason = reason_of_words(told) or reason_of({"code": known.trouble.get("status")})
        return self.end(ok=False, reason=reason, message=told)

    def _result(self, result: Said, error: Any) -> Event:
        if error:
            return self.end(ok=False, reason=reason_of(error), message=words_of(error))
        stop = str(result.get("stopReason") or "an answer without a stop reason")
        if stop == "end_turn":
            return self.end(ok=True, message=self.known.words or stop)
        return self.end(ok=False, reason=STOPPED.get(stop, stop), message=f"its turn ended with {stop}")

    # how it ended

    def verdict(self, exit_code: int) -> Verdict:
        """What the protocol says, then what was denied to it, then its exit code."""
        known, ended = self.known, self.known.ended or {}
        known.denied = [
            ask["tool"] for ask in known.asked.values() if ask.get("denied") and ask["worked"] == known.worked
        ]
        value = {"text": known.words, "session": known.session}
        if ended.get("reason") == "protocol":
            return Verdict("failed", "protocol", ended["message"], value)
        if ended.get("reason") == "cancelled" and known.interrupted:
            return Verdict(
                "blocked", "turn_interrupted", "its turn was interrupted, and nothing was said to it since", value
            )
        if ended.get("reason") == "cancelled" and known.denied:
            message = f"its turn ended when it was not allowed to use: {', '.join(known.denied[:5])}"
            return Verdict("failed", "disagreement", message, value)
        return super().verdict(exit_code)

    def freeze(self) -> Mapping[str, Any] | None:
        """All that is known."""
        self.known.compact()
        return asdict(self.known)

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.known = AcpKnown(**state)


def _turn(turn: int, state: str, why: str | None = None) -> Event:
    return Event("turn", why, {"turn": turn, "state": state, **({"why": why} if why else {})})


def _is_message(said: Said) -> bool:
    """A request or a notification has a method, an answer has a result or an error."""
    return isinstance(said.get("method"), str) or ("id" in said and ("result" in said or "error" in said))
