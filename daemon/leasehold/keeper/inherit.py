"""What a starting keeper does about its predecessor: no tree survives it, no run stays without a record (rule 14).

If it fails, no daemon is answered here. What cannot be killed is no reason for that: its run is taken over, unkillable.
"""

import os
import time
from dataclasses import dataclass
from signal import SIGKILL

from leasehold.keeper import procfs
from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.containment import Group
from leasehold.keeper.house import House
from leasehold.keeper.kill import Kill
from leasehold.keeper.log import log
from leasehold.keeper.numbers import number_of
from leasehold.keeper.procfs import Process
from leasehold.keeper.record import lost
from leasehold.keeper.rounds import Rounds
from leasehold.keeper.run import Run
from leasehold.keeper.sweep import Members, inherit, marked

LOOKS = 5
"""Looks in a row that must find nothing: a process that forks and dies all the time may hide from one."""


@dataclass(frozen=True, slots=True)
class Trail:
    """How a run of this boot without a record can be found: its leader, and the number that its processes carry."""

    run_id: int
    pid: int
    start: int
    number: int | None
    uid: int | None


def take_over(house: House, rounds: Rounds) -> None:
    """Kill every tree of an earlier keeper, then load or write each run's exit record. Before hello is answered."""
    house.empty_bin()
    trails, began = _trails(house), boottime()
    groups = {group.run_id: group for group in house.groups.leftovers()} if house.groups is not None else {}
    unseen, left = 0, _left(house.keeper_id, trails, groups)
    looks = LOOKS if left or house.directories() else 0
    while unseen < looks and boottime() - began < Kill.patience:
        for group in groups.values():
            group.kill()
        for one in (each for members in left.values() for each in members):
            procfs.send(one, SIGKILL)
        time.sleep(0.01)
        left = _left(house.keeper_id, trails, groups)
        unseen = 0 if left else unseen + 1
    for run_id in house.directories():
        _load(house, rounds, run_id, left.get(run_id), groups.get(run_id))
    for run_id, group in groups.items():
        if run_id not in left:
            group.remove()


def _left(keeper_id: str, trails: list[Trail], groups: dict[int, Group]) -> Members:
    """Who lives of which run."""
    everything = procfs.processes()
    reapers = _reapers(everything)
    known = {(one.pid, one.start): run_id for one, run_id in marked(keeper_id, everything)}
    for trail in trails:
        found = [one for one in everything.values() if _on(trail, one, everything, reapers)]
        known |= {(one.pid, one.start): trail.run_id for one in found}
    for run_id, group in groups.items():
        known |= {(pid, everything[pid].start): run_id for pid in group.pids() if pid in everything}
    inherit(known, everything)
    members: Members = {run_id: [] for run_id, group in groups.items() if group.populated()}
    for (pid, _start), run_id in known.items():
        members.setdefault(run_id, []).append(everything[pid])
    return members


def _on(trail: Trail, one: Process, everything: dict[int, Process], reapers: set[int]) -> bool:
    """The leader; or who carries the run's number, is of its user and age, an orphan, and in no session of others."""
    if (one.pid, one.start) == (trail.pid, trail.start):
        return True
    if trail.number is None or one.start < trail.start or number_of(one.pid) != trail.number:
        return False
    head = everything.get(one.session)
    alike = procfs.real_uid(one.pid) == trail.uid and (head is None or number_of(head.pid) == trail.number)
    return alike and _orphaned(one, trail.number, everything, reapers)


def _orphaned(one: Process, number: int, everything: dict[int, Process], reapers: set[int]) -> bool:
    """Nobody else is above it: an agent of another keeper, whose numbers are the same as ours, has that one above it."""
    seen = {one.pid}
    while (above := everything.get(one.ppid)) is not None and above.pid not in reapers | seen:
        if number_of(above.pid) != number:
            return False
        seen.add(above.pid)
        one = above
    return True


def _reapers(everything: dict[int, Process]) -> set[int]:
    """Who may have been given our predecessor's orphans: one of those above us."""
    found, above = {1}, os.getppid()
    while above in everything and above not in found:
        found.add(above)
        above = everything[above].ppid
    return found


def _trails(house: House) -> list[Trail]:
    found = []
    for run_id in house.directories():
        facts = house.directory(run_id).started() or {}
        pid, start, number, uid = (facts.get(name) for name in ("pid", "start_time", "number", "uid"))
        if facts.get("boot_id") == boot_id() and isinstance(pid, int) and isinstance(start, int):
            whose = (number, uid) if isinstance(number, int) and isinstance(uid, int) else (None, None)
            if house.directory(run_id).exit() is None:
                found.append(Trail(run_id, pid, start, *whose))
    return found


def _load(house: House, rounds: Rounds, run_id: int, left: list[Process] | None, group: Group | None) -> None:
    directory = house.directory(run_id)
    record, started = directory.exit(), directory.started()
    if record is None and started is None:
        directory.remove()  # prepared, never begun: as if it had not been asked for
        return
    run = Run(run_id, str((record or started or {}).get("token", "")), boottime(), 0.0, directory)
    house.runs[run_id] = run
    run.group = group  # what it used is read from it
    if record is not None:
        run.exit = record
        run.close()
    elif left is not None:
        run.inherit(left)
        rounds.adopt(run_id, left)
    else:
        why = "keeper_lost" if (started or {}).get("boot_id", boot_id()) == boot_id() else "host_reboot"
        log("run_of_predecessor_ended", "warning", run_id=run_id, why=why)
        house.settle(run, lost(run, house.keeper_id, why))
