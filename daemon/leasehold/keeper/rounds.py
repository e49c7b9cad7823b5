"""The keeper's round: who has ended, what is due, who is left over. If it fails, the keeper fails and the next one sweeps.

Kills come first and wait for no disk: records are written after every tree that is due has had its signal, and one by
one, so that a slow disk holds up the next kill by one record at most.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import SIGKILL
from time import thread_time

from leasehold.keeper import procfs
from leasehold.keeper.clock import boottime
from leasehold.keeper.house import House
from leasehold.keeper.log import log
from leasehold.keeper.procfs import Process
from leasehold.keeper.run import Run
from leasehold.keeper.spare import Spare
from leasehold.keeper.sweep import NOBODYS, Families, Members

LOOK = 1.0
"""Seconds between two looks at who descends from whom, while runs live and no cgroup holds them."""
REAP = 0.1
"""Seconds of CPU that one look for orphans may spend on clearing away the dead: ten thousand and more."""
BEHIND = 20
"""So often in a row clearing away comes before all else."""
HUNT = 0.02
"""Seconds that one round may spend on trees that run away as fast as they are killed."""
SOON = 0.1
"""Seconds after which we look again where the host gave an error."""
ALL = 0
"""Stands for every run, where the trouble is the whole round's."""
AGAIN = 1.0
"""Seconds after which what could not be written or removed is tried again."""


class Rounds:
    """Told when to go by the server's loop."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._families = Families(house.keeper_id, os.getpid(), self.orphans)
        self._next_look = 0.0
        self._behind = 0
        self._gone: list[Run] = []  # nothing of them is left, and their record is not yet written
        self._spare = Spare()
        self._trouble: dict[int, float] = {}  # whose, and when to look again
        self._said = ""
        self._not_ours = {(one.pid, one.start) for one in map(procfs.process, procfs.own_children()) if one is not None}
        """Children that the program had which became us by exec."""

    def go(self, now: float) -> None:
        """Reap, look, act, settle. Cheap when nothing is due. `now` is when the last extension was heard at the latest."""
        with self._spare.lent(), self._border(ALL):
            self._go(now)

    @contextmanager
    def _border(self, run_id: int) -> Iterator[None]:
        """The blast-radius border: what the host refuses one run, or one round, must not end every agent. Look again."""
        try:
            yield
        except OSError as error:
            self._trouble[run_id] = boottime() + SOON
            if str(error) != self._said:
                log("round_failed", "error", run_id=run_id or None, error=str(error), decided="look again")
            self._said = str(error)
        else:
            self._trouble.pop(run_id, None)
            self._said = self._said if self._trouble else ""

    def _go(self, now: float) -> None:
        if self._clear_first():
            return
        live = self._left()
        just_ended = [run for run in live if run.reap()]
        left_over = bool(self.orphans())
        self._gone += [run for run in just_ended if not left_over and run.gone([])]
        due = [run for run in self._left() if run in just_ended or self._due_at(run) <= now]
        if due or ((live or self._families.unsure) and now >= self._next_look):
            self._gone += self._act(due, now)
        self._settle()

    def _clear_first(self) -> bool:
        """Are the dead so many that every look at the living would take for ever? Then they go first, for a while."""
        done = self._reap_all_but(self._leaders(), thread_time() + REAP)
        self._behind = 0 if done else (self._behind + 1) % BEHIND
        return self._behind > 0

    def _left(self) -> list[Run]:
        """Runs of which something may be left."""
        return [run for run in self._house.live if run not in self._gone]

    def _settle(self) -> None:
        """At least one record, and the others while nothing is due that a slow disk would hold up."""
        while self._gone:
            run = self._gone.pop(0)
            with self._border(run.run_id):
                self._house.end(run)
            if any(self._due_at(run) <= boottime() for run in self._left()):
                return
        self._house.write_again()

    def orphans(self) -> list[Process]:
        """Our living children that lead no run: all that a tree whose parents are gone leaves is given to us.

        A dead one may just have given us its children, so it is reaped and we look again: until nobody is dead, which
        makes it exact. Trees that die and are born faster than we look are as many as they like, so at the last look the
        dead stand for what they left behind: they have the run's number still, and nobody takes the run for gone.
        """
        leaders = self._leaders()
        no_strays = self._house.helpers.items() | self._not_ours
        until = thread_time() + REAP
        while True:
            more = self._reap_all_but(leaders, until)
            seen = [procfs.process(pid) for pid in procfs.own_children() if pid not in leaders]
            found = [one for one in seen if one is not None]
            if not more or all(one.alive for one in found):
                return [one for one in found if (one.pid, one.start) not in no_strays]
            for one in found:
                if not one.alive:  # behind a leader that has just died, whom its run waits for
                    self._reap(one.pid)

    def _leaders(self) -> set[int | None]:
        """Pids that are taken by them: a reaped leader's may be somebody else's by now."""
        return {run.pid for run in self._house.live if run.leading}

    def _reap_all_but(self, leaders: set[int | None], until: float) -> bool:
        """Who is dead is asked for one by one: a list of thousands is slow to make. False: the time is over."""
        while thread_time() < until:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if dead is None or dead.si_pid in leaders:
                return True
            self._reap(dead.si_pid)
        return False

    def _reap(self, pid: int) -> None:
        run = self._house.runs.get(self._families.owner(pid) or NOBODYS)
        with suppress(ChildProcessError):
            usage = os.wait4(pid, os.WNOHANG)[2]
            if run is not None:
                run.reaped += usage.ru_utime + usage.ru_stime
        self._house.helpers.pop(pid, None)

    def adopt(self, run_id: int, processes: list[Process]) -> None:
        """These belong to a run that an earlier keeper started."""
        self._families.adopt(run_id, processes)

    def members(self) -> Members:
        """Who belongs to which live run now."""
        return self._families.look(self._house.live)

    def _act(self, due: list[Run], now: float) -> list[Run]:
        """Do what is due; the runs that are gone now."""
        members = self.members()
        self._next_look = now + LOOK
        self._end_nobodys(members.get(NOBODYS, []))
        for run in self._left():
            if run.held:  # somebody may have been born while the others were stopped
                run.hold(members.get(run.run_id, []))
        for run in due:
            before = run.state
            with self._border(run.run_id):
                run.act(now, members.get(run.run_id, []))
            if run.state == "unkillable" != before:
                self._house.tell({"event": "unkillable", "run_id": run.run_id, "processes": run.kill.left()})
        self._hunt([run for run in due if run.kill.begun and not run.kill.hopeless])
        for run in due:
            run.reap()
        if any(run.kill.begun and not run.leading for run in due):  # the kill has just changed the picture
            members = self.members()
        return [run for run in due if run.gone(members.get(run.run_id, []))]

    def _end_nobodys(self, strays: list[Process]) -> None:
        for one in strays:
            if procfs.send(one, SIGKILL):
                log("stray_killed", "warning", pid=one.pid, name=one.name, why="no run lives that can have started it")

    def _hunt(self, runs: list[Run]) -> None:
        until = boottime() + HUNT
        for run in runs:
            while boottime() < until and (found := self._families.of(run)):
                run.kill.strike(found)

    def _due_at(self, run: Run) -> float:
        return max(run.next_at, self._trouble.get(run.run_id, 0.0))

    def next_at(self) -> float | None:
        """When to come back (CLOCK_BOOTTIME); None: when something happens."""
        if ALL in self._trouble:
            return self._trouble[ALL]
        now, live = boottime(), self._left()
        times = [self._due_at(run) for run in live] + [now] * bool(self._gone or self._behind)
        if self._house.unwritten:
            times.append(now + AGAIN)
        if self._families.unsure or (live and self._house.groups is None):
            times.append(self._next_look)
        return min(times, default=None)
