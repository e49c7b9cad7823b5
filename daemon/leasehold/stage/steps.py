"""One command of a preparation: until when, where its words go, how it fails. If it fails, the run fails and names it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from leasehold.stage.ends import Ends
from leasehold.stage.words import StageError, shown

TAIL = 1500
"""Characters of a command's last words that are quoted."""
READ = 8 * TAIL
SHOWN = 200
"""Characters of a command that are quoted."""
LOOK = 0.02
GRACE = 2.0
"""Seconds between TERM and KILL for a command that is late."""


class Clock:
    """Until when all steps together may take, and whether anybody wants them to end before."""

    def __init__(self, seconds: float, ends: Ends | None, goal: str = "the workspace was not ready") -> None:
        self.seconds = seconds
        self.late = f"{goal} after {seconds:g} seconds"
        self._until = time.monotonic() + seconds
        self._ends = ends

    def check(self, step: str) -> None:
        """Raises StageError: no step begins now."""
        if self._ends is not None and self._ends.asked is not None:
            raise StageError("stopped", step, "stopped before it was ready")
        if time.monotonic() >= self._until:
            raise StageError("timeout", step, self.late)

    @property
    def over(self) -> bool:
        """Has the time run out?"""
        return time.monotonic() >= self._until


@dataclass(frozen=True, slots=True)
class Step:
    """A command: the step it is, and what is shown of it should it fail. Without `env` it has the agent's."""

    name: str
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str] | None = None
    shown: Sequence[str] = ()

    @property
    def quoted(self) -> str:
        """For people."""
        said = shown(" ".join(self.shown or self.argv))
        return repr(said if len(said) <= SHOWN else f"{said[:SHOWN]}...")


class Steps:
    """Runs commands one after the other. Their words, stdout as well, are the run's stderr: stdout is the agent's."""

    def __init__(self, clock: Clock, env: Mapping[str, str], stderr: Path) -> None:
        self.clock = clock
        self.env = dict(env)
        self._stderr = stderr

    def run(self, each: Step) -> None:
        """Raises StageError unless it ends well."""
        begins = self._size()
        status = self._wait(each, None, 0)
        if status != 0:
            raise self._failed(each, status, begins)

    def answer(self, each: Step, limit: int = 1 << 20, fine: Sequence[int] = (0,)) -> tuple[int, bytes]:
        """Its status and the first `limit` bytes of its stdout; with more to say it is ended. Raises StageError."""
        begins = self._size()
        with tempfile.TemporaryFile(dir=self._stderr.parent) as out:
            status = self._wait(each, out, limit)
            if status not in fine and os.fstat(out.fileno()).st_size <= limit:
                raise self._failed(each, status, begins)
            return status, os.pread(out.fileno(), limit, 0)

    def _wait(self, each: Step, out: IO[bytes] | None, limit: int) -> int:
        self.clock.check(each.name)
        try:
            child = subprocess.Popen(
                each.argv, cwd=each.cwd, env=dict(each.env or self.env), stdin=subprocess.DEVNULL, stdout=out or 2,
                stderr=2, process_group=0,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise StageError("workspace", each.name, f"cannot start {each.argv[0]!r}: {error}") from error
        while True:
            try:
                return child.wait(LOOK)
            except subprocess.TimeoutExpired:
                if out is not None and os.fstat(out.fileno()).st_size > limit:
                    return _kill(child)
                if self.clock.over:
                    _kill(child)
                    told = f"{each.quoted} took too long: {self.clock.late}"
                    raise StageError("timeout", each.name, told) from None

    def _failed(self, each: Step, status: int, begins: int) -> StageError:
        self.clock.check(each.name)  # stopped in the middle of it: that is why
        how = f"ended by signal {-status}" if status < 0 else f"exited with {status}"
        words = self._tail(begins)
        return StageError("workspace", each.name, f"{each.quoted} {how}" + (f": {words}" if words else ""))

    def _size(self) -> int:
        try:
            return self._stderr.stat().st_size
        except OSError:
            return 0

    def _tail(self, begins: int) -> str:
        """What it said last; what the daemon has punched out of the file meanwhile reads as zeros."""
        try:
            with self._stderr.open("rb") as file:
                at = file.seek(max(begins, self._size() - READ))
                said = file.read(READ).replace(b"\0", b"").decode("utf-8", "replace")
        except OSError:
            return ""
        if at > begins:  # half a word may be half an address, with a login that nobody would know for one
            said = said.partition(" ")[2] or said.partition("\n")[2]
        return shown(said).strip()[-TAIL:].strip()


def _kill(child: "subprocess.Popen[bytes]") -> int:
    """It and what it started with it: TERM, then KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return child.wait(GRACE if number == signal.SIGTERM else None)
    return child.wait()
