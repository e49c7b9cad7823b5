"""Who belongs to a run, whatever it did to get away. If it fails, a stray lives.

Descent, session, the marker in the environment, the number in oom_score_adj, the group; and everything whose parents
are gone is given to us by the kernel, so that it is one of our runs' even where nothing tells whose. Such a stray is
ended when no run is left that can have started it.
"""

import os
from collections.abc import Callable, Iterable

from leasehold.keeper import procfs
from leasehold.keeper.numbers import number_of
from leasehold.keeper.procfs import Process
from leasehold.keeper.run import Run

RUN = b"LEASEHOLD_RUN_ID"
KEEPER = b"LEASEHOLD_KEEPER_ID"
"""The marker: every agent is started with both, and its descendants inherit them."""

Identity = tuple[int, int]
Members = dict[int, list[Process]]
NOBODYS = 0
"""Stands for the run of a stray whose run has ended."""


class Families:
    """Remembers, from look to look, which process is of which run."""

    def __init__(self, keeper_id: str, me: int, orphans: Callable[[], list[Process]]) -> None:
        self._keeper_id = keeper_id.encode()
        self._me = me
        self._orphans = orphans
        self._known: dict[Identity, int] = {}
        self._pids: set[int] = set()
        self._foreign: set[Identity] = set()
        self._candidates: dict[Identity, frozenset[int]] = {}

    @property
    def unsure(self) -> bool:
        """Are there strays whose run we do not know? Then we must look again without being asked."""
        return bool(self._candidates)

    def look(self, runs: Iterable[Run]) -> Members:
        """Living members of each run; under NOBODYS what is left of none that lives."""
        live = {run.run_id: run for run in runs if run.pid is not None or run.kill.begun}
        everything = procfs.processes()
        everything.pop(self._me, None)
        known = self._sure(live, everything)
        inherit(known, everything)
        known |= self._strays(live, known, everything)
        inherit(known, everything)
        self._foreign = {(one.pid, one.start) for one in everything.values()} - known.keys()
        self._known, self._pids = known, {pid for pid, _start in known}
        members: Members = {}
        for (pid, _start), run_id in known.items():
            members.setdefault(run_id, []).append(everything[pid])
        return members

    def adopt(self, run_id: int, processes: Iterable[Process]) -> None:
        """These are of that run, whoever their parents are."""
        self._known |= {(one.pid, one.start): run_id for one in processes}

    def owner(self, pid: int) -> int | None:
        """The run of one that was seen before, dead or alive; unseen ones are many, so no file is read for them."""
        one = procfs.process(pid) if pid in self._pids else None
        return None if one is None else self._known.get((one.pid, one.start))

    def of(self, run: Run) -> list[Process]:
        """Orphans that are surely this run's, found without a look at every process: for those who run away fast."""
        found = []
        for one in self._orphans():
            owner = self._known.get((one.pid, one.start)) or self._by_marker(one)
            if owner == run.run_id or (owner is None and run.number is not None and number_of(one.pid) == run.number):
                found.append(one)
        return found

    def _sure(self, live: dict[int, Run], everything: dict[int, Process]) -> dict[Identity, int]:
        known: dict[Identity, int] = {}
        leaders = {run.pid: run for run in live.values() if run.pid is not None}
        for one in everything.values():
            identity = one.pid, one.start
            owner = self._known.get(identity)
            if (run := leaders.get(one.pid)) is not None and run.start_time == one.start:
                owner = run.run_id
            elif owner is None and (run := leaders.get(one.session)) is not None:
                head = everything.get(one.session)
                if head is None or head.start == run.start_time:  # else the number has gone to a session of others
                    owner = run.run_id
            if owner is None and identity not in self._foreign:
                owner = self._by_marker(one)
            if owner is not None:
                known[identity] = owner if owner in live else NOBODYS
        for run in live.values():
            for pid in run.group.pids() if run.group is not None else ():
                if found := everything.get(pid):
                    known[pid, found.start] = run.run_id
        return known

    def _strays(
        self, live: dict[int, Run], known: dict[Identity, int], everything: dict[int, Process]
    ) -> dict[Identity, int]:
        """Orphans of ours that nothing but their number, or their age, tells apart."""
        numbers = {run.number: run.run_id for run in live.values() if run.number is not None}
        found, candidates = {}, {}
        for one in self._orphans():
            identity = one.pid, one.start
            if identity in known:
                continue
            everything.setdefault(one.pid, one)
            if owner := numbers.get(number_of(one.pid) or 0):
                found[identity] = owner
                continue
            able = self._candidates.get(identity)
            if able is None:
                able = frozenset(run.run_id for run in live.values() if (run.start_time or 0) <= one.start)
            candidates[identity] = able
            left = able & live.keys()
            if len(left) < 2:
                found[identity] = next(iter(left), NOBODYS)
        self._candidates = candidates
        return found

    def _by_marker(self, one: Process) -> int | None:
        marks = procfs.environ(one.pid, RUN, KEEPER)
        if marks.get(KEEPER) == self._keeper_id and marks.get(RUN, b"").isdigit():
            return int(marks[RUN])
        return None


def inherit(known: dict[Identity, int], everything: dict[int, Process]) -> None:
    """Children of members are members, down to the last."""
    below: dict[int, list[Process]] = {}
    for one in everything.values():
        below.setdefault(one.ppid, []).append(one)
    todo = [(pid, run_id) for (pid, _start), run_id in known.items()]
    while todo:
        pid, run_id = todo.pop()
        for one in below.get(pid, ()):
            if (one.pid, one.start) not in known:
                known[one.pid, one.start] = run_id
                todo.append((one.pid, run_id))


def marked(keeper_id: str, everything: dict[int, Process]) -> list[tuple[Process, int]]:
    """Everything that carries our marker, and the run that it names."""
    found = []
    for one in everything.values():
        marks = procfs.environ(one.pid, RUN, KEEPER)
        if marks.get(KEEPER) == keeper_id.encode() and one.pid != os.getpid():
            found.append((one, int(marks[RUN]) if marks.get(RUN, b"").isdigit() else NOBODYS))
    return found
