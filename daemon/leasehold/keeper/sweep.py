"""Who belongs to a run, whatever it did to get away: descent, session, marker, adoption. If it fails, a stray lives.

Without a cgroup this is all there is. What it cannot catch: a daemon with a clean environment and a session of its
own that forked away between two looks while other runs live; it is killed when the keeper has no runs left.
"""

from leasehold.keeper import procfs
from leasehold.keeper.procfs import Process

RUN = b"LEASEHOLD_RUN_ID"
KEEPER = b"LEASEHOLD_KEEPER_ID"
"""The marker: every agent is started with both, and its descendants inherit them."""

Identity = tuple[int, int]


class Families:
    """Remembers, from look to look, which process descends from which run's leader."""

    def __init__(self, keeper_id: str, me: int) -> None:
        self._keeper_id = keeper_id.encode()
        self._me = me
        self._known: dict[Identity, int] = {}

    def look(self, leaders: dict[int, Identity]) -> dict[int, list[Process]]:
        """Living members of each run, leaders first seen by `leaders` (run id -> pid and start time)."""
        everything = procfs.processes()
        everything.pop(self._me, None)
        known: dict[Identity, int] = {}
        for run_id, (pid, start) in leaders.items():
            leader = everything.get(pid)
            if leader is not None and leader.start == start:
                known[pid, start] = run_id
        sessions = {pid: run_id for run_id, (pid, _start) in leaders.items()}
        for one in everything.values():
            owner = self._owner(one, sessions)
            if owner is not None:
                known[one.pid, one.start] = owner
        self._inherit(known, everything)
        self._known = known
        members: dict[int, list[Process]] = {}
        for (pid, _start), run_id in known.items():
            members.setdefault(run_id, []).append(everything[pid])
        return members

    def marked(self) -> list[Process]:
        """Everything that carries our marker, of whatever run."""
        everything = [one for one in procfs.processes().values() if one.pid != self._me]
        return [one for one in everything if procfs.environ(one.pid, KEEPER).get(KEEPER) == self._keeper_id]

    def _owner(self, one: Process, sessions: dict[int, int]) -> int | None:
        if (one.pid, one.start) in self._known:
            return self._known[one.pid, one.start]
        if one.session in sessions:
            return sessions[one.session]
        marks = procfs.environ(one.pid, RUN, KEEPER)
        if marks.get(KEEPER) == self._keeper_id and marks.get(RUN, b"").isdigit():
            return int(marks[RUN])
        return None

    def _inherit(self, known: dict[Identity, int], everything: dict[int, Process]) -> None:
        """Children of members are members, down to the last."""
        by_pid = {pid: run_id for (pid, _start), run_id in known.items()}
        changed = True
        while changed:
            changed = False
            for one in everything.values():
                if one.pid not in by_pid and one.ppid in by_pid:
                    by_pid[one.pid] = known[one.pid, one.start] = by_pid[one.ppid]
                    changed = True


def strangers(leaders: set[int]) -> list[Process]:
    """Our own living children that are no run's leader: orphans that the kernel gave us."""
    found = []
    for pid in procfs.own_children():
        one = procfs.process(pid) if pid not in leaders else None
        if one is not None and one.alive:
            found.append(one)
    return found
