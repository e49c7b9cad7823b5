"""Reads /proc and signals what it found there, never by a bare pid. If it fails, a sweep sees too little."""

import os
import signal
from errno import EMFILE, ENFILE, ENOMEM

SCARCE = frozenset({EMFILE, ENFILE, ENOMEM})
"""Errors that say nothing about the file: whoever took them for its absence would take living agents for gone."""
GONE = frozenset("ZXx")
"""States of a process that can do nothing any more."""


class Process:
    """One process, as it was when it was looked at; `start` (clock ticks since boot) tells it from a later pid."""

    __slots__ = ("name", "pgrp", "pid", "ppid", "session", "start", "state", "threads", "ticks", "waited")

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, tail = stat.rpartition(b")")
        fields = tail.split()
        self.pid = pid
        self.name = head.partition(b"(")[2].decode("utf-8", "replace")
        self.state = fields[0].decode("ascii")
        self.ppid, self.pgrp, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.ticks = int(fields[11]) + int(fields[12])  # CPU of its own,
        self.waited = int(fields[13]) + int(fields[14])  # and of the dead below it, as far as somebody waited for them
        self.threads, self.start = int(fields[17]), int(fields[19])

    @property
    def alive(self) -> bool:
        """Can it still do something? A main thread that has left is shown as dead while its others live on."""
        return self.state not in GONE or self.threads > 1


def read_bytes(path: str) -> bytes | None:
    """The content of a small file, or None: it is gone, or not for us to read. Raises OSError when the host is short."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while part := os.read(fd, 65536):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in SCARCE:
            raise
        return None


def process(pid: int) -> Process | None:
    """The process with that pid now, zombie or not."""
    stat = read_bytes(f"/proc/{pid}/stat")
    return Process(pid, stat) if stat else None


def processes() -> dict[int, Process]:
    """Every process there is, zombies left out."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 names are all we need, many times a second
        if name.isdigit() and (one := process(int(name))) is not None and one.alive:
            found[one.pid] = one
    return found


def descendants(roots: set[int], everything: dict[int, Process]) -> list[Process]:
    """The roots that live, and all below them."""
    below: dict[int, list[int]] = {}
    for one in everything.values():
        below.setdefault(one.ppid, []).append(one.pid)
    found, todo = set(), list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += below.get(pid, ())
    return [everything[pid] for pid in found if pid in everything]


def own_children() -> list[int]:
    """Pids of our direct children, zombies too. Exact: only we reap them, so nobody leaves while we read."""
    me = os.getpid()
    lists = [read_bytes(f"/proc/{me}/task/{task}/children") for task in os.listdir(f"/proc/{me}/task")]  # noqa: PTH208
    if any(part is not None for part in lists):
        return [int(pid) for part in lists if part for pid in part.split()]
    return [one.pid for one in processes().values() if one.ppid == me]  # a kernel without PROC_CHILDREN


def environ(pid: int, *names: bytes) -> dict[bytes, bytes]:
    """Those variables of the process's environment that it was started with."""
    found = {}
    for pair in (read_bytes(f"/proc/{pid}/environ") or _of_thread(pid)).split(b"\0"):
        name, _, value = pair.partition(b"=")
        if name in names:
            found[name] = value
    return found


def _of_thread(pid: int) -> bytes:
    """A main thread that has left shows no environment; the threads that live on do."""
    try:
        others = [name for name in os.listdir(f"/proc/{pid}/task") if name != str(pid)]  # noqa: PTH208
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    return next((said for name in others if (said := read_bytes(f"/proc/{pid}/task/{name}/environ"))), b"")


def real_uid(pid: int) -> int | None:
    """Who started it."""
    for line in (read_bytes(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def send(target: Process, number: int) -> bool:
    """Signal exactly that process; False: it is gone, or not ours to signal."""
    try:
        fd = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_by_pid(target, number)  # out of descriptors: a kill must not wait for one
    try:
        now = process(target.pid)
        if now is None or now.start != target.start:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError as error:
        return error.errno in SCARCE and _send_by_pid(target, number)
    else:
        return True
    finally:
        os.close(fd)


def _send_by_pid(target: Process, number: int) -> bool:
    try:
        os.kill(target.pid, number)
    except OSError:
        return False
    return True
