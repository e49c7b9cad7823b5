"""Speak with a real agent that converses, without a daemon: what its adapter owes goes in, what it says goes to the adapter.

A cue says what somebody wants of it as soon as it has said something. If this fails, nothing can be recorded.
"""

import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from leasehold.agents.base import Conversing
from leasehold.models import Control, Event


@dataclass(frozen=True)
class Cue:
    """With the first event of that kind (that has these data, and is no earlier than the cue before) that control is sent.

    `kind` may be the name of a signal as well.
    """

    after: str
    kind: Any
    text: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)  # what the event's data has

    def is_due(self, event: Event) -> bool:
        return event.kind == self.after and self.given.items() <= dict(event.data).items()

    def control(self, number: int, event: Event) -> Control:
        request = {"request": event.data["id"]} if self.kind == "answer" else {}
        return Control(self.kind, number, self.text, {**request, **self.data})


@dataclass
class Talked:
    """What it said, what it was told behind how many of its lines."""

    lines: list[str] = field(default_factory=list)
    sent: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def converse(
    process: "subprocess.Popen[bytes]", adapter: Conversing, cues: Sequence[Cue] = (), patience: float = 60
) -> Talked:
    """Until it has left. Its stdin and stdout are pipes; whoever calls this reads its stderr, or gave it a file."""
    talked, left = Talked(), list(cues)
    watchdog = threading.Timer(patience, process.kill)
    watchdog.start()
    try:
        feed(process, adapter)
        for line in process.stdout or ():
            talked.lines.append(line.decode())
            events = adapter.receive(line) or ()
            talked.events += events
            for event in events:
                while left and left[0].is_due(event):
                    act(process, adapter, left.pop(0), event, talked)
            feed(process, adapter)
        process.wait()
    finally:
        watchdog.cancel()
    assert not left, f"the moment never came: {left[0]}"
    return talked


def act(process: "subprocess.Popen[bytes]", adapter: Conversing, cue: Cue, event: Event, talked: Talked) -> None:
    """What the cue says."""
    if cue.kind in signal.Signals.__members__:
        process.send_signal(signal.Signals[cue.kind])
        return
    control = cue.control(len(talked.sent) + 1, event)
    talked.sent.append((len(talked.lines), asdict(control)))
    adapter.send(control)


def feed(process: "subprocess.Popen[bytes]", adapter: Conversing) -> None:
    """All that is owed; the end, if that is all."""
    assert process.stdin is not None
    try:
        for owed in adapter.owed:
            if not process.stdin.closed:
                process.stdin.write(owed.raw)
                process.stdin.flush()
            adapter.taken(owed.key)
        if adapter.over and not process.stdin.closed:
            process.stdin.close()
    except BrokenPipeError:
        pass  # it left by itself
