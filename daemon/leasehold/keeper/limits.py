"""A run's limits, checked word by word, as the values that the kernel takes. If it fails, one spawn is refused."""

import re
from collections.abc import Callable, Mapping

from leasehold.keeper.protocol import RefusedError

SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)(i?B)?", re.ASCII | re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MOST_PIDS = 1 << 22
HEAVIEST = 10_000

FILES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "memory_max": (("memory.oom.group", "1"), ("memory.swap.max", "0"), ("memory.max", None)),
    "pids_max": (("pids.max", None),),
    "cpu_weight": (("cpu.weight", None),),
}
"""Each limit's files in the run's group and what goes there; None: the value. The last one is the limit itself."""


def check(limits: Mapping[str, object]) -> dict[str, int]:
    """Limits that we know and what they mean. Raises RefusedError for one that makes no sense."""
    return {name: CHECKS[name](name, value) for name, value in limits.items() if name in CHECKS and value is not None}


def _number(name: str, value: object, most: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise RefusedError("bad_request", f"limit {name!r} must be a whole number from 1 to {most}, not {value!r}")
    return value


def _size(name: str, value: object) -> int:
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        value = int(found[1]) * UNITS[found[2].upper()]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 63:
        raise RefusedError("bad_request", f"limit {name!r} must be bytes or a size like 512M, not {value!r}")
    return value


CHECKS: dict[str, Callable[[str, object], int]] = {
    "memory_max": _size,
    "pids_max": lambda name, value: _number(name, value, MOST_PIDS),
    "cpu_weight": lambda name, value: _number(name, value, HEAVIEST),
}
