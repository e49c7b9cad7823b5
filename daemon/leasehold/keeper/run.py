"""One run's life under the keeper: start, deadline, ladder, end, sweep. If it fails, one run fails."""

import os
import subprocess
import time
from signal import SIGKILL, SIGTERM
from typing import ClassVar

from leasehold.keeper import procfs
from leasehold.keeper.clock import boottime
from leasehold.keeper.containment import Group
from leasehold.keeper.hold import Hold
from leasehold.keeper.ladder import Ladder
from leasehold.keeper.log import log
from leasehold.keeper.look import tree
from leasehold.keeper.procfs import Process
from leasehold.keeper.rundir import RunDirectory

SWEEP_PAUSES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


class Run:
    """A tree and its end. The house tells it the time and who its members are."""

    patience: ClassVar[float] = 10.0
    """Seconds of killing after which a tree that is still there is called unkillable; it is killed on, slower."""

    def __init__(self, run_id: int, token: str, deadline: float, grace: float, directory: RunDirectory) -> None:
        self.run_id = run_id
        self.token = token
        self.deadline = deadline
        self.grace = grace
        self.directory = directory
        self.state = "running"
        self.exit: dict[str, object] | None = None
        self.group: Group | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd: int | None = None
        self.stdin_writer: int | None = None
        self.start_time: int | None = None
        self.program = ""
        self.missing: list[str] = []
        self.status: int | None = None
        self.swept = 0
        self.usage: dict[str, object] = {}
        self.story: str | None = None
        self.unkillable: list[Process] = []
        self.began = (time.time(), boottime())
        self._ladder: Ladder | None = None
        self._hold = Hold()
        self._killing_since: float | None = None
        self._sweeps = 0

    def own(self, process: "subprocess.Popen[bytes]") -> None:
        """The agent lives as `process`."""
        self.process = process
        found = procfs.process(process.pid)
        self.start_time = found.start if found else 0
        try:
            self.pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            log("pidfd_failed", "warning", run_id=self.run_id, error=str(error))

    @property
    def pid(self) -> int | None:
        """Of the leader."""
        return self.process.pid if self.process else None

    @property
    def leading(self) -> bool:
        """Is the leader still there?"""
        return self.process is not None and self.status is None

    @property
    def why(self) -> str | None:
        """What ends it, if it is not left to end by itself."""
        return self._ladder.why if self._ladder else None

    @property
    def held(self) -> bool:
        """Does it stand still?"""
        return self._hold.held

    def hold(self, members: list[Process]) -> bool:
        """Stop every member; True: look again, some were running. A run that is being ended is not held."""
        return self.state == "running" and self.leading and self._hold.take(members, self.group)

    def release(self) -> None:
        """Let it run again."""
        self._hold.let_go(self.group)

    def extend(self, deadline: float) -> None:
        """A later deadline; never an earlier one. A ladder that a passing deadline began goes on."""
        self.deadline = max(self.deadline, deadline)

    def stop(self, signals: list[tuple[int, float]], why: str) -> None:
        """Begin the ladder, or hasten it."""
        ladder = Ladder(boottime(), signals, why)
        if self._ladder is None:
            self._end_by(ladder)
        else:
            self._ladder.shorten(ladder)

    def _end_by(self, ladder: Ladder) -> None:
        self._ladder, self.state = ladder, "stopping"
        self.release()  # who stands still hears no signal
        if self.group is not None:
            self.group.thaw()

    def next_at(self, now: float) -> float:
        """When something is due (CLOCK_BOOTTIME)."""
        if self._killing_since is not None:
            pause = SWEEP_PAUSES[min(self._sweeps, len(SWEEP_PAUSES) - 1)]
            return now + (1.0 if self.state == "unkillable" else pause)
        soft = self.deadline - self.grace if self._ladder is None else self._ladder.next_at
        return min(soft, self.deadline)

    def leader_ended(self) -> bool:
        """Reap the leader if it has ended; only we wait for it, and only by its own pid."""
        if self.process is None or self.status is not None:
            return self.status is not None
        try:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        except ChildProcessError:
            self.status = 0
            return True
        if pid == 0:
            return False
        self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 3)
        if self._killing_since is None:
            self._killing_since = boottime()  # whatever it left behind goes now, also after success
        return True

    def act(self, now: float, members: list[Process]) -> None:
        """Do what is due: signals of the ladder, the deadline, the kill."""
        if self._killing_since is not None:
            self._kill(members)
            return
        if self._ladder is None and now >= self.deadline - self.grace:
            log("deadline_near", "warning", run_id=self.run_id, why="its lease was not renewed")
            self._end_by(Ladder(now, [(SIGTERM, max(0.0, self.deadline - now))], "deadline"))
        if self._ladder is None:
            return
        for number in self._ladder.due(now):
            for one in members:
                procfs.send(one, number)
        if now >= min(self._ladder.kill_at, self.deadline):
            self._killing_since = now
            self._kill(members)

    def _kill(self, members: list[Process]) -> None:
        self._sweeps += 1
        if self.story is None and members:
            self.story = tree(members)  # kept in memory: the kill waits for no disk
        if self.group is not None:
            self.group.kill()
        leader = self.pid
        self.swept += sum(procfs.send(one, SIGKILL) for one in members if one.pid != leader or self.status is None)
        if self._killing_since is not None and boottime() - self._killing_since > self.patience:
            self._give_up_on(members)

    def _give_up_on(self, members: list[Process]) -> None:
        if self.state != "unkillable":
            log("unkillable", "error", run_id=self.run_id, pids=[one.pid for one in members])
        self.state, self.unkillable = "unkillable", members

    def gone(self, members: list[Process]) -> bool:
        """Is nothing left?"""
        if self._killing_since is None or (self.process is not None and self.status is None):
            return False
        return not members and not (self.group is not None and self.group.populated())

    def close_stdin(self) -> None:
        """The agent reads the end of its input."""
        if self.stdin_writer is not None:
            os.close(self.stdin_writer)
            self.stdin_writer = None

    def close(self) -> None:
        """Give back what is held of a tree that is gone."""
        self.close_stdin()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        if self.group is not None and self.group.remove():
            self.group = None

    def describe(self) -> dict[str, object]:
        """As `list` and `spawn` answer it."""
        return {
            "run_id": self.run_id,
            "token": self.token,
            "state": "exited" if self.exit else self.state,
            "pid": self.pid,
            "start_time": self.start_time,
            "cgroup": str(self.group.path) if self.group else None,
            "deadline": self.deadline,
            "exit": self.exit,
            "limits_missing": self.missing,
            "held": self.held,
            "unkillable": [{"pid": one.pid, "name": one.name, "state": one.state} for one in self.unkillable],
        }
