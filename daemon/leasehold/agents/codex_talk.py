"""What was said to Codex's app server, what is owed to it, and which turn is at work. Pure; if it fails, one run fails.

The server's answers name what they answer (`turn:17/steer`), so a replay knows what was heard before it is told again what was sent.
Nothing that a line leads to depends on what was sent, only on what the lines before it have said: events are the same in any replay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leasehold.agents import codex_asked, jsonrpc
from leasehold.models import Control, Event, Input

PROMPT = "prompt"
"""Key of the first turn, that of the job's own prompt."""


@dataclass
class Talk:
    """All of it; JSON can say it."""

    prompt: str = ""  # until it was said
    resumes: str | None = None  # the thread that it is to go on with
    owed: list[list[str]] = field(default_factory=list)  # key, line
    thread: str | None = None
    turn: str | None = None  # at work
    last: str | None = None  # that was at work
    starting: str | None = None  # key of a turn that was asked for, and has no id yet
    early: list[list[str]] = field(default_factory=list)  # kind, key, text: for the turn that has no id yet
    queue: list[list[str]] = field(default_factory=list)  # key, text, key of the line: for when the turn is over
    flying: dict[str, str] = field(default_factory=dict)  # controls without an answer, and their text
    heard: list[str] = field(default_factory=list)  # controls with one
    late: list[str] = field(default_factory=list)  # steers that came too late; their text is not known here yet
    members: list[str] = field(default_factory=list)  # controls that the turn at work answers
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # of the changes that have begun
    cleaning: str | None = None
    closed: bool = False  # nothing is worth saying any more

    @property
    def idle(self) -> bool:
        """A turn may begin."""
        return self.thread is not None and self.turn is None and self.starting is None

    @property
    def settled(self) -> bool:
        """No turn is at work or to come."""
        return self.idle and not (self.queue or self.early or self.flying or self.late)

    def owe(self, key: str, line: bytes) -> None:
        """Say this next."""
        self.owed.append([key, line.decode()])

    def taken(self, key: str) -> None:
        """The keeper has it."""
        self.owed = [each for each in self.owed if each[0] != key]

    def inputs(self) -> list[Input]:
        """What is owed, in order."""
        return [Input(key, line.encode()) for key, line in self.owed]

    def close(self) -> None:
        """Let it leave."""
        self.closed = True
        self.owed.clear()

    def send(self, control: Control) -> None:
        """A control, perhaps not for the first time."""
        key, text = control.key, control.text or ""
        if control.kind == "answer":
            return self._answer(key, control.data)
        if self.closed or key in self.heard or key in self.flying or key == self.starting or self._waits(key):
            return None
        if key in self.late:
            self.late.remove(key)
            return self.begin(key, text, f"{key}/again")
        if control.kind == "prompt":
            return self.begin(key, text, key)
        return self._to_turn(control.kind, key, text)

    def _waits(self, key: str) -> bool:
        return key in {each[1] for each in self.early} | {each[0] for each in self.queue}

    def _to_turn(self, kind: str, key: str, text: str) -> None:
        if self.starting is not None:
            self.early.append([kind, key, text])
        elif kind == "interrupt":
            self._interrupt(key, self.turn or self.last or "")
        elif self.turn is None:
            self.begin(key, text, key)
        else:
            self.flying[key] = text
            params = {"threadId": self.thread, "expectedTurnId": self.turn, "input": words(text)}
            self.owe(key, jsonrpc.request(f"{key}/steer", "turn/steer", params))

    def _interrupt(self, key: str, turn: str) -> None:
        self.flying[key] = ""
        self.owe(key, jsonrpc.request(f"{key}/interrupt", "turn/interrupt", {"threadId": self.thread, "turnId": turn}))

    def _answer(self, key: str, data: Mapping[str, Any]) -> None:
        asked = self.asked.get(str(data.get("request")))
        if asked is not None and "by" not in asked and not self.closed:
            asked["by"] = key
            self.owe(key, jsonrpc.answer(asked["id"], codex_asked.reply(asked["method"], asked["kept"], data)))

    def forget(self, ident: object) -> list[Event]:
        """It does not wait any more for what it has asked under this id."""
        names = [name for name, each in self.asked.items() if str(each["id"]) == str(ident)]
        for name in names:
            self.taken(self.asked.pop(name).get("by", ""))
        return [Event("withdrawn", None, {"id": name}) for name in names]

    def opened(self, thread: str) -> None:
        """It has a conversation: the job's prompt is the first that is said in it."""
        self.thread = thread
        prompt, self.prompt = self.prompt, ""
        self.begin(PROMPT, prompt, PROMPT)

    def begin(self, key: str, text: str, line: str) -> None:
        """A turn with these words, now or when the one at work is over."""
        if not self.idle:
            self.queue.append([key, text, line])
            return
        self.starting = key
        params = {"threadId": self.thread, "input": words(text)}
        self.owe(line, jsonrpc.request(f"{key}/start", "turn/start", params))

    def began(self, key: str, turn: str) -> None:
        """The turn of this key has an id now."""
        self.hear(key)
        self.turn, self.members = turn, [] if key == PROMPT else [key]
        self.starting = None
        early, self.early = self.early, []
        for kind, each, text in early:
            self._to_turn(kind, each, text)

    def refused(self, key: str, why: str) -> Event:
        """It would not take this."""
        self.hear(key)
        return told(key, "refused", why)

    def missed(self, key: str) -> None:
        """This steer came too late: it is a turn of its own."""
        text = self.flying.pop(key, None)
        if text is None:
            self.late.append(key)
        else:
            self.begin(key, text, f"{key}/again")

    def hear(self, key: str) -> None:
        """It has answered this."""
        self.flying.pop(key, None)
        for line in (key, f"{key}/again"):
            self.taken(line)
        if key in self.late:
            self.late.remove(key)
        self.queue = [each for each in self.queue if each[0] != key]
        if self.starting == key:
            self.starting = None
        if key not in self.heard:
            self.heard.append(key)

    def ended(self, why: str, *, failed: bool) -> list[Event]:
        """The turn at work is over: what was asked of a human is not wanted any more, what was asked of it is done.

        If it has failed that is not done, and is said again to whoever tries again.
        """
        withdrawn = [Event("withdrawn", None, {"id": ident}) for ident in sorted(self.asked)]
        done = [] if failed else [told(key, "ended", why) for key in self.members]
        self.last, self.turn, self.members = self.turn or self.last, None, []
        self.asked.clear()
        self.files.clear()
        return withdrawn + done

    def go_on(self) -> None:
        """What waited for the end of a turn, or for a turn that did not begin."""
        early, self.early = self.early, []
        for kind, key, text in early:
            self._to_turn(kind, key, text)
        if self.idle and self.queue:
            self.begin(*self.queue.pop(0))


def told(key: str, state: str, why: str | None = None) -> Event:
    """What became of a control."""
    return Event("turn", None, {"turn": int(key.rpartition(":")[2]), "state": state, "why": why})


def words(text: str) -> list[dict[str, Any]]:
    """As it takes them."""
    return [{"type": "text", "text": text, "text_elements": []}]
