"""One run's life under the keeper: start, deadline, ladder, end, sweep. If it fails, one run fails."""

import os
import subprocess
import time
from contextlib import suppress
from signal import SIGTERM

from leasehold.keeper import procfs
from leasehold.keeper.clock import boottime
from leasehold.keeper.containment import Group
from leasehold.keeper.feed import Feed
from leasehold.keeper.hold import Hold
from leasehold.keeper.kill import Kill
from leasehold.keeper.ladder import Ladder
from leasehold.keeper.log import log
from leasehold.keeper.procfs import Process
from leasehold.keeper.protocol import RefusedError
from leasehold.keeper.rundir import RunDirectory


class Run:
    """A tree and its end. The house tells it the time and who its members are."""

    def __init__(self, run_id: int, token: str, deadline: float, grace: float, directory: RunDirectory) -> None:
        self.run_id = run_id
        self.token = token
        self.deadline = deadline
        self.grace = grace
        self.directory = directory
        self.exit: dict[str, object] | None = None
        self.group: Group | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.feed: Feed | None = None
        self.start_time: int | None = None
        self.number: int | None = None
        self.program = ""
        self.missing: list[str] = []
        self.status: int | None = None
        self.unseen = False  # the leader is gone, and nobody can say how it ended
        self.usage: dict[str, object] = {}
        self.reaped = 0.0  # seconds of CPU of its orphans that died, and of the dead below them
        self.kill = Kill(run_id)
        self.began = (time.time(), boottime())
        self._ladder: Ladder | None = None
        self._hold = Hold()

    def own(self, process: "subprocess.Popen[bytes]") -> None:
        """The agent lives as `process`."""
        self.process, self.start_time = process, 0
        with suppress(OSError):  # it lives: what goes wrong from here on is no failed start
            found = procfs.process(process.pid)
            self.start_time = found.start if found else 0

    def inherit(self, members: list[Process]) -> None:
        """An earlier keeper's, and it does not die."""
        self.kill.begin()
        self.kill.give_up_on(members)

    @property
    def pid(self) -> int | None:
        """Of the leader."""
        return self.process.pid if self.process else None

    @property
    def leading(self) -> bool:
        """Is the leader still there?"""
        return self.process is not None and self.status is None and not self.unseen

    @property
    def state(self) -> str:
        """As the daemon knows it."""
        if self.exit is not None:
            return "exited"
        if self.kill.hopeless:
            return "unkillable"
        return "running" if self._ladder is None else "stopping"

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
        self._ladder = ladder
        self.release()  # who stands still hears no signal
        if self.group is not None:
            self.group.thaw()

    @property
    def next_at(self) -> float:
        """When something is due (CLOCK_BOOTTIME)."""
        if self.kill.begun:
            return self.kill.next_at
        soft = self.deadline - self.grace if self._ladder is None else self._ladder.next_at
        return min(soft, self.deadline)

    def reap(self) -> bool:
        """Has the leader just ended? Only we wait for it, and only by its own pid."""
        if self.process is None or not self.leading:
            return False
        try:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        except ChildProcessError:
            log("leader_unseen", "error", run_id=self.run_id, pid=self.pid, decided="its outcome is unknown; sweep")
            self.unseen = True
            self.kill.begin()
            return True
        if pid == 0:
            return False
        self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 3)
        self.kill.begin()  # whatever it left behind goes now, also after success
        return True

    def act(self, now: float, members: list[Process]) -> None:
        """Do what is due: signals of the ladder, the deadline, the kill."""
        if self.kill.begun:
            self.kill.go_on(members, self.group)
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
            self.kill.begin()
            self.kill.go_on(members, self.group)

    def gone(self, members: list[Process]) -> bool:
        """Is nothing left?"""
        if not self.kill.begun or self.leading:
            return False
        return not members and not (self.group is not None and self.group.populated())

    def tell(self, key: str, raw: bytes) -> bool:
        """The agent is to read `raw`, once; False: it was told before. Raises RefusedError."""
        if self.feed is not None:
            return self.feed.take(key, raw)
        if self.exit is not None or self.process is None:
            raise RefusedError("closed", f"run {self.run_id} has ended")
        raise RefusedError("no_fifo", f"run {self.run_id} was spawned with a stdin that takes nothing")

    def close_stdin(self) -> None:
        """The agent reads the end of its input, behind all that it was told."""
        if self.feed is not None:
            self.feed.close()

    def close(self) -> None:
        """Give back what is held of a tree that is gone."""
        if self.feed is not None:
            self.feed.drop()
        if self.group is not None and self.group.remove():
            self.group = None

    def describe(self) -> dict[str, object]:
        """As `list` and `spawn` answer it."""
        return {
            "run_id": self.run_id,
            "token": self.token,
            "state": self.state,
            "pid": self.pid,
            "start_time": self.start_time,
            "cgroup": str(self.group.path) if self.group else None,
            "deadline": self.deadline,
            "exit": self.exit,
            "limits_missing": self.missing,
            "held": self.held,
            "unkillable": self.kill.left(),
            "inputs": len(self.feed.keys) if self.feed else 0,
        }
