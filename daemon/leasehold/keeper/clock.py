"""The clocks: CLOCK_BOOTTIME decides, wall time is only written down. If it fails, the keeper does not start."""

import time
from functools import cache
from pathlib import Path


def boottime() -> float:
    """Seconds since boot, suspend included; nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """The identity of this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
