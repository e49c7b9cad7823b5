"""What a starting keeper does about its predecessor: no tree survives it, no run stays without a record (rule 14)."""

import time
from signal import SIGKILL

from leasehold.keeper import procfs
from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.house import House
from leasehold.keeper.log import log
from leasehold.keeper.procfs import Process
from leasehold.keeper.record import lost
from leasehold.keeper.run import Run
from leasehold.keeper.sweep import marked

PATIENCE = 30.0
"""Seconds of killing after which the keeper says that something does not die, and goes on killing."""


def take_over(house: House) -> None:
    """Kill every tree of an earlier keeper, then load or write each run's exit record. Before hello is answered."""
    recorded = _recorded(house)
    began, said = boottime(), False
    while victims := _victims(house, recorded):
        for one in victims:
            procfs.send(one, SIGKILL)
        if not said and boottime() - began > PATIENCE:
            said = True
            log(
                "unkillable",
                "error",
                pids=[one.pid for one in victims],
                decided="no daemon is answered until they are gone",
            )
        time.sleep(0.01)
    if house.groups is not None:
        for group in house.groups.leftovers():
            group.remove()
    for run_id in _run_ids(house):
        _load(house, run_id)


def _victims(house: House, recorded: set[tuple[int, int]]) -> list[Process]:
    if house.groups is not None:
        for group in house.groups.leftovers():
            group.kill()
    everything = procfs.processes()
    roots = {one.pid for one in everything.values() if (one.pid, one.start) in recorded}
    found = {one.pid: one for one in [*marked(house.keeper_id), *procfs.descendants(roots, everything)]}
    return [one for one in found.values() if one.alive]


def _recorded(house: House) -> set[tuple[int, int]]:
    """Leaders that the predecessor wrote down, of this boot."""
    found = set()
    for run_id in _run_ids(house):
        facts = house.directory(run_id).started() or {}
        pid, start = facts.get("pid"), facts.get("start_time")
        if facts.get("boot_id", boot_id()) == boot_id() and isinstance(pid, int) and isinstance(start, int):
            found.add((pid, start))
    return found


def _run_ids(house: House) -> list[int]:
    return sorted(int(path.name) for path in house.directory(0).runs.iterdir() if path.name.isdigit())


def _load(house: House, run_id: int) -> None:
    directory = house.directory(run_id)
    record, started = directory.exit(), directory.started()
    if record is None and started is None:
        directory.remove()  # prepared, never begun: as if it had not been asked for
        return
    token = str((record or started or {}).get("token", ""))
    run = Run(run_id, token, boottime(), 0.0, directory)
    house.runs[run_id] = run
    if record is not None:
        run.exit = record
        return
    why = "keeper_lost" if (started or {}).get("boot_id") == boot_id() else "host_reboot"
    log("run_of_predecessor_ended", "warning", run_id=run_id, why=why)
    house.settle(run, lost(run, house.keeper_id, why))
