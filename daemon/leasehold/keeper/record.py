"""The exit record: what a run's end is to the daemon and to the database. If it fails, the keeper tries again."""

import os
import time
from typing import TYPE_CHECKING

from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.spawn import SpawnError, wrapper_error

if TYPE_CHECKING:
    from leasehold.keeper.run import Run

Record = dict[str, object]


def never_started(run: "Run", keeper_id: str, why: str, error: SpawnError | None = None) -> Record:
    """Of a run that was never started."""
    return {
        "run_id": run.run_id,
        "token": run.token,
        "keeper_id": keeper_id,
        "boot_id": boot_id(),
        "state": "never_started",
        "exit_code": None,
        "signal": None,
        "why": why,
        "error": {"kind": error.kind, "message": str(error)} if error else None,
        "started_at": run.began[0],
        "ended_at": time.time(),
        "seconds": 0.0,
        "swept": 0,
        "containment": "",
        "usage": {},
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "disk_free": _free(run),
        "tree": None,
    }


def ended(run: "Run", keeper_id: str, rung: str) -> Record:
    """Of a tree that is gone; before its group is removed."""
    status = run.status
    failed = wrapper_error(run.directory, run.program) if status in (125, 126, 127) else None
    if run.kill.story is not None:
        run.directory.write_tree(run.kill.story)
    return {
        **never_started(run, keeper_id, run.why or ("keeper_lost" if run.unseen else "exit"), failed),
        "state": "never_started" if failed else "exited",
        "exit_code": status if status is not None and status >= 0 and not failed else None,
        "signal": -status if status is not None and status < 0 else None,
        "seconds": round(boottime() - run.began[1], 3),
        "swept": run.kill.swept,
        "containment": rung,
        "usage": {**run.usage, **(run.group.usage() if run.group is not None else {})},
        "stdout_bytes": run.directory.size("stdout"),
        "stderr_bytes": run.directory.size("stderr"),
        "tree": run.kill.story,
    }


def lost(run: "Run", keeper_id: str, why: str) -> Record:
    """Of a run whose keeper did not see its end."""
    sizes = {f"{name}_bytes": run.directory.size(name) for name in ("stdout", "stderr")}
    usage = run.group.usage() if run.group is not None else {}
    return {**never_started(run, keeper_id, why), "state": "exited", "usage": usage, **sizes}


def _free(run: "Run") -> int | None:
    """Bytes free where the output goes: an agent that failed on a full disk is told apart by it."""
    try:
        found = os.statvfs(run.directory.runs)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
