"""Speak with an ACP agent as daemon and keeper do, without either: stdout and stderr are files, stdin a pipe that is fed.

A cue says what somebody wants of it as soon as it has said something. If this fails, nothing can be recorded or shown.
"""

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leasehold.agents.base import Conversing
from leasehold.models import Command, Control, Event

PATIENCE = 90.0
TO_LEAVE = 30.0
"""Seconds between the end of its stdin and the end of our patience."""


@dataclass(frozen=True)
class Cue:
    """With the first event of that kind and with these data, no earlier than the cue before, that control is sent."""

    after: str
    kind: Any
    text: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    pause: float = 0.0

    def is_due(self, event: Event) -> bool:
        return event.kind == self.after and dict(self.given).items() <= dict(event.data).items()

    def control(self, number: int, event: Event) -> Control:
        request = {"request": event.data["id"]} if self.kind == "answer" else {}
        return Control(self.kind, number, self.text, {**request, **self.data})


ALLOW = Cue("permission", "answer", data={"decision": "allow"})
DENY = Cue("permission", "answer", data={"decision": "deny"})


@dataclass
class Talked:
    """What it said, what it was told behind how many of its lines, how it left. `left`: nobody had to stop it."""

    lines: list[bytes] = field(default_factory=list)
    sent: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    exit_code: int = 0
    stderr: str = ""
    left: bool = True
    seconds: float = 0.0  # from its first line to the end of its stdin

    def the(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


def talk(
    adapter: Conversing, start: Command, cwd: Path, cues: Sequence[Cue] = (), patience: float = PATIENCE
) -> Talked:
    """Until it has left, or was made to."""
    talked, waiting = Talked(), list(cues)
    with tempfile.TemporaryDirectory() as place, started(start, cwd, Path(place)) as process:
        feed(process, adapter)
        for line in lines(process, Path(place) / "stdout", patience):
            talked.lines.append(line)
            heard = adapter.receive(line) or ()
            talked.events += heard
            for event in heard:
                while waiting and waiting[0].is_due(event):
                    cue = waiting.pop(0)
                    time.sleep(cue.pause)
                    control = cue.control(len(talked.sent) + 1, event)
                    talked.sent.append((len(talked.lines), asdict(control)))
                    adapter.send(control)
                    feed(process, adapter)
            feed(process, adapter)
        talked.left, talked.exit_code = leave(process), process.wait()
        talked.stderr = (Path(place) / "stderr").read_text(errors="replace")
    assert not waiting, (
        f"the moment never came: {waiting[0]}, {[e.kind for e in talked.events]}, {talked.stderr[-2000:]}"
    )
    return talked


def feed(process: "subprocess.Popen[bytes]", adapter: Conversing) -> None:
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


def lines(process: "subprocess.Popen[bytes]", path: Path, patience: float) -> Iterator[bytes]:
    """Whole lines, until it has left, or its stdin is closed and it does not leave."""
    closed_at, heard_at, rest = None, time.monotonic(), b""
    with path.open("rb") as file:
        while True:
            ended = process.poll() is not None
            *whole, rest = (rest + file.read()).split(b"\n")
            for line in whole:
                heard_at = time.monotonic()
                yield line + b"\n"
            if ended and not whole:
                return
            now = time.monotonic()
            closed_at = closed_at or (now if process.stdin.closed else None)
            if closed_at and now - closed_at > TO_LEAVE:
                return
            assert now - heard_at < patience, "it neither says anything nor leaves"
            time.sleep(0.02)


def leave(process: "subprocess.Popen[bytes]") -> bool:
    """Did it leave by itself? It has, in the end."""
    if process.poll() is not None:
        return True
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
    return False


@contextmanager
def started(start: Command, cwd: Path, place: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """It, and nothing of it afterwards."""
    marker = uuid.uuid4().hex
    env = {"PATH": os.environ["PATH"], **start.env, "LEASEHOLD_TALK": marker}
    with (place / "stdout").open("ab") as out, (place / "stderr").open("ab") as err:
        process = subprocess.Popen(
            start.argv, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        sweep(marker.encode())
        process.wait()


def sweep(marker: bytes) -> None:
    """Nobody who was started by it is left, in whatever session."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
