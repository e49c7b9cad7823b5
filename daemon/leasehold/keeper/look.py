"""What a tree is and does, for a reader: its members, its shape, CPU and bytes moved. If it fails, a question stays open."""

import os
from collections.abc import Sequence

from leasehold.keeper.procfs import Process, read_bytes

TICKS = os.sysconf("SC_CLK_TCK")
TREE_LIMIT = 16 * 1024
"""Bytes of a tree as text; what is longer is cut, and says so."""


def look(members: Sequence[Process], cpu_seconds: float | None, reaped: float = 0.0) -> dict[str, object]:
    """The living tree: who, and what it has used, the dead included: as its group says, else as its members and we know."""
    if cpu_seconds is None:
        cpu_seconds = sum(one.ticks + one.waited for one in members) / TICKS + reaped
    return {
        "cpu_seconds": round(cpu_seconds, 3),
        "io_bytes": sum(_moved(one.pid) for one in members),
        "processes": [
            {"pid": one.pid, "ppid": one.ppid, "name": one.name, "state": one.state, "threads": one.threads}
            for one in members
        ],
        "tree": tree(members),
    }


def tree(members: Sequence[Process]) -> str:
    """Children below their parents, one line each."""
    pids = {one.pid for one in members}
    below: dict[int, list[Process]] = {}
    for one in sorted(members, key=lambda each: each.start):
        below.setdefault(one.ppid if one.ppid in pids else 0, []).append(one)
    lines = ["     pid     ppid state threads  cpu s  name"]
    todo = [(one, 0) for one in reversed(below.get(0, []))]
    while todo:
        one, depth = todo.pop()
        cpu = one.ticks / TICKS
        facts = f"{one.pid:>8} {one.ppid:>8} {one.state:<5} {one.threads:>7} {cpu:>6.1f}"
        lines.append(f"{facts}  {'  ' * min(depth, 40)}{one.name}")
        todo += [(each, depth + 1) for each in reversed(below.get(one.pid, []))]
    return _cut("\n".join(lines) + "\n", len(members))


def _cut(text: str, processes: int) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= TREE_LIMIT:
        return raw.decode()
    last = f"... {processes} processes in all\n"
    return raw[: TREE_LIMIT - len(last)].rpartition(b"\n")[0].decode("utf-8", "replace") + "\n" + last


def _moved(pid: int) -> int:
    """Bytes that it read and wrote, pipes and files; 0 where we may not look."""
    pairs = [line.split() for line in (read_bytes(f"/proc/{pid}/io") or b"").splitlines()]
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in (b"rchar:", b"wchar:"))
