"""Where a server of the tests keeps its data: in memory if there is room, because hundreds of databases come and go in it."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

SHM, PREFIX = Path("/dev/shm"), "leasehold-test-"
NEEDED = 4 << 30
"""Bytes that must be free there, and of the machine's memory."""


@contextmanager
def server_directory(otherwise):
    """Gone afterwards; what a killed session has left there, too."""
    if not _room():
        yield otherwise
        return
    for left in SHM.glob(f"{PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=SHM, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _room():
    try:
        disk = os.statvfs(SHM)
        known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = min(disk.f_bavail * disk.f_frsize, int(known["MemAvailable"].split()[0]) * 1024)
        return free >= NEEDED and os.access(SHM, os.W_OK | os.X_OK)
    except (OSError, KeyError, ValueError):
        return False
