"""The other half of a conversation with Claude Code: what it is owed, has heard and has asked. Pure; if it fails, one run fails.

Each prompt goes out with an id made of its turn's and comes back with it when the model hears it; the next result covers all that
was heard by then. So its stdout alone tells which turns are over, and a replay of it knows what is still owed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from leasehold.agents.claude_asks import answered, asked, here, kept
from leasehold.models import Control, Event, Input

Said = dict[str, Any]
INIT, START, VAIN = "init", "start", "vain"
"""The keys of what is owed without anybody asking: the handshake, the job's prompt, the end of what is in vain."""
SENT, HEARD, ENDED = "sent", "heard", "ended"
OURS = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-4([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{12})")
HALF = (1 << 60) - 1


@dataclass
class Talk:
    """JSON can say it; what has an order is a list."""

    run: int = 0
    ready: bool = False
    closed: bool = False  # nothing is said to it any more
    owed: list[list[str]] = field(default_factory=list)  # key, line
    turns: dict[str, str] = field(default_factory=lambda: {"0": SENT})  # by control; 0 is the job's own prompt
    interrupts: dict[str, str] = field(default_factory=dict)
    asks: list[Said] = field(default_factory=list)
    stopped: bool = False  # by an answer that says so
    refused: list[int] = field(default_factory=list)
    speaking: list[Any] = field(default_factory=lambda: [None, 0])  # the message that comes, its texts that are whole

    @classmethod
    def of(cls, run: int, prompt: str) -> "Talk":
        """One that begins."""
        talk = cls(run=run)
        talk.owe(INIT, _request(INIT, "initialize"))
        talk.owe(START, _prompt(ident_of(run, 0), prompt))
        return talk

    @property
    def inputs(self) -> Sequence[Input]:
        """What nobody has taken yet."""
        return [Input(key, f"{line}\n".encode()) for key, line in self.owed]

    @property
    def waiting(self) -> bool:
        """A human is asked."""
        return not self.closed and any("key" not in ask for ask in self.asks)

    @property
    def busy(self) -> bool:
        """Something it was told has not come to its end."""
        return not self.closed and any(state != ENDED for state in (*self.turns.values(), *self.interrupts.values()))

    @property
    def begun(self) -> bool:
        """The job's prompt was heard."""
        return self.turns["0"] != SENT

    @property
    def interrupted(self) -> bool:
        """It has heard that it is to stop."""
        return self.stopped or HEARD in self.interrupts.values()

    def owe(self, key: str, said: Said) -> None:
        """Once."""
        if not self.closed and all(key != each for each, _ in self.owed):
            self.owed.append([key, json.dumps(said, ensure_ascii=False)])

    def paid(self, key: str) -> None:
        """It has it."""
        self.owed = [each for each in self.owed if each[0] != key]

    def give_up(self) -> None:
        """Whatever it does from here on is in vain."""
        self.owed.clear()
        self.owe(VAIN, _request(VAIN, "interrupt"))
        self.closed = True

    def send(self, control: Control) -> None:
        """One that is known already changes nothing."""
        ident, key = str(control.id), control.key
        if control.kind == "answer":
            self._answer(control)
        elif self.closed:
            self.refused += [] if {ident} & {*self.turns, *self.interrupts} else [control.id]
        elif control.kind == "interrupt" and ident not in self.interrupts:
            self.interrupts[ident] = SENT
            self.owe(key, _request(key, "interrupt"))
        elif control.kind != "interrupt" and ident not in self.turns:
            self.turns[ident] = SENT
            more = {"priority": "later"} if control.kind == "prompt" else {}
            self.owe(key, {**_prompt(ident_of(self.run, control.id), control.text or ""), **more})

    def _answer(self, control: Control) -> None:
        for ask in self.asks:
            if _name(ask) == control.data.get("request") and "key" not in ask:
                self.owe(control.key, _response(ask["id"], answered(ask, control.data)))
                ask["key"] = control.key

    def heard(self, ident: object) -> bool:
        """A prompt comes back: the model hears it. Whether there is more to do by it."""
        found = OURS.fullmatch(str(ident))
        if found is None or int(found[1] + found[2] + found[3], 16) != self.run & HALF:
            return False
        turn = str(int(found[4] + found[5], 16))
        self.paid(START if turn == "0" else f"turn:{turn}")
        if self.turns.get(turn, SENT) != SENT:
            return False
        self.turns[turn] = HEARD
        return not self.closed

    def responded(self, response: Said) -> Sequence[Event]:
        """To a request of ours. Nothing ends by an interrupt that found nothing to interrupt, so that ends at once."""
        key, well = str(response["request_id"]), response.get("subtype") == "success"
        self.paid(key)
        if list(self.withdrawn(id=key)):  # it repeats the answers that it gets
            self.stopped = bool((response.get("response") or {}).get("interrupt"))
        if key == INIT:
            self.ready = self.ready or well
        ident = key.removeprefix("turn:")
        if ident == key or self.interrupts.get(ident) == ENDED:
            return ()
        if well and any(state != ENDED for state in self.turns.values()):
            self.interrupts[ident] = HEARD
            return ()
        self.interrupts[ident] = ENDED
        return (_turn(ident, "ended" if well else "refused", str(response.get("error") or "nothing was to interrupt")),)

    def requested(self, said: Said, name: str) -> Sequence[Event]:
        """A request of its own, to be known by this name; no event: nobody here knows what it wants."""
        ident, request = str(said["request_id"]), said["request"]
        try:
            if request["subtype"] != "can_use_tool":
                raise ValueError("not here")
            event = asked(name, request)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.owe(f"reply:{name}", _refusal(ident, "the host does not do this"))
            return ()
        always = [here(each) for each in request.get("permission_suggestions") or []]
        before = list(self.withdrawn(id=ident))  # it would take an answer to that for one to this
        ask = {"id": ident, "name": name, "tool": request["tool_name"], "call": request.get("tool_use_id")}
        self.asks.append({**ask, "input": kept(request), "always": always})
        return (*before, event)

    def refuse(self, ident: str, name: str, why: str) -> Event:
        """What nobody is asked."""
        self.owe(f"reply:{name}", _refusal(ident, why))
        return Event("unknown", f"it asked for something, which is refused: {why}", {}, "debug")

    def withdrawn(self, **which: object) -> Iterator[Event]:
        """It waits no longer for the answer to these: id or call."""
        for ask in [ask for ask in self.asks if which.items() <= ask.items()]:
            self.asks.remove(ask)
            self.paid(ask.get("key", ""))
            yield Event("withdrawn", None, {"id": _name(ask)})

    def result(self, covers: Sequence[object]) -> Iterator[Event]:
        """One turn of its own is over, and with it all that it has heard until now; the first one is of the job's prompt."""
        if self.turns["0"] == SENT:
            self.turns["0"] = HEARD
        for ident in covers:
            self.heard(ident)
        yield from self.withdrawn()
        self.stopped = False
        for states in (self.turns, self.interrupts):
            for ident in sorted((each for each in states if states[each] == HEARD), key=int):
                states[ident] = ENDED
                if ident != "0":
                    yield _turn(ident, "ended")

    def refusals(self) -> Sequence[Event]:
        """What came too late, said once."""
        refused, self.refused = self.refused, []
        return [_turn(str(each), "refused", "it was told to leave") for each in refused]


def ident_of(run: int, turn: int) -> str:
    """Of the message that brings this turn to this run: a session has the messages of all its runs, and no two of them twice."""
    run_, turn_ = f"{run & HALF:015x}", f"{turn & HALF:015x}"
    return f"{run_[:8]}-{run_[8:12]}-4{run_[12:]}-8{turn_[:3]}-{turn_[3:]}"


def _name(ask: Said) -> str:
    return str(ask.get("name", ask["id"]))  # an older daemon knew them by their ids


def _turn(ident: str, state: str, why: str | None = None) -> Event:
    return Event("turn", why, {"turn": int(ident), "state": state, **({"why": why} if why else {})})


def _prompt(ident: str, text: str) -> Said:
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    return {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "default", "uuid": ident}


def _request(ident: str, subtype: str) -> Said:
    return {"type": "control_request", "request_id": ident, "request": {"subtype": subtype}}


def _response(ident: str, response: Said) -> Said:
    return {
        "type": "control_response",
        "response": {"subtype": "success", "request_id": ident, "response": response},
    }


def _refusal(ident: str, error: str) -> Said:
    return {"type": "control_response", "response": {"subtype": "error", "request_id": ident, "error": error}}
