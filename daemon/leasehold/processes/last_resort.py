"""Kill a process tree without the keeper's help, when the keeper is away and a deadline is near (protocol rule 15).

If it fails, the tree lives until the keeper or the host ends it; the daemon says so and keeps renewing.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def kill_tree(run_id: int, keeper_id: str, pid: int | None, start_time: int | None, cgroup: str | None) -> bool:
    """One pass: the run's cgroup, its leader with all descendants, whatever carries its marker. True: nothing is left."""
    if cgroup:
        with suppress(OSError):
            Path(cgroup, "cgroup.kill").write_text("1")
    victims = set(_marked(run_id, keeper_id))
    if pid is not None and _start_time(pid) == start_time:
        victims |= {pid, *_descendants(pid)}
    for victim in victims:
        _kill(victim)
    return not victims and not (cgroup and _populated(cgroup))


def _populated(cgroup: str) -> bool:
    """Is anybody in the group? A group that is gone is empty."""
    try:
        return "populated 1" in Path(cgroup, "cgroup.events").read_text()
    except OSError:
        return False


def _kill(pid: int) -> None:
    """By pidfd: between the look and the signal the number may have passed to somebody else."""
    born = _start_time(pid)
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if _start_time(pid) == born:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _marked(run_id: int, keeper_id: str) -> Iterator[int]:
    marks = {f"LEASEHOLD_RUN_ID={run_id}".encode(), f"LEASEHOLD_KEEPER_ID={keeper_id}".encode()}
    for pid in _pids():
        with suppress(OSError):
            if marks <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")) and _alive(pid):
                yield pid


def _descendants(root: int) -> set[int]:
    parents = {pid: _parent(pid) for pid in _pids()}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid for pid in found - {root} if _alive(pid)}


def _pids() -> list[int]:
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()
    ]


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _start_time(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _alive(pid: int) -> bool:
    fields = _fields(pid)
    return bool(fields) and fields[0] not in "ZX"
