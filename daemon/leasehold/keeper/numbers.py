"""A number per live run that its processes carry in oom_score_adj. If it fails, one trait fewer tells whose a stray is.

Unlike a session or the environment, it is kept through setsid, double forks, a cleaned environment, exec and setuid,
anybody may read it, and any process may raise its own. A run's number is a little above the keeper's, which makes
agents the kernel's first choice when memory runs out; that is as it should be.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from leasehold.keeper.procfs import read_bytes

HIGHEST = 1000


class Numbers:
    """Hands out numbers that no other live run has."""

    def __init__(self) -> None:
        self._own = number_of(os.getpid()) or 0
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """The lowest free one; None: this host has none to give."""
        free = (number for number in range(max(self._own, 0) + 1, HIGHEST + 1) if number not in self._taken)
        number = next(free, None)
        if number is not None:
            self._taken.add(number)
        return number

    def give_back(self, number: int | None) -> None:
        """Its run has ended and nothing carries it any more."""
        self._taken.discard(number or 0)

    @contextmanager
    def worn(self, number: int | None) -> Iterator[bool]:
        """Whoever is started in here carries it; False: it could not be."""
        done = number is not None and _wear(number)
        try:
            yield done
        finally:
            if done:
                _wear(self._own)


def number_of(pid: int) -> int | None:
    """What the process carries."""
    said = (read_bytes(f"/proc/{pid}/oom_score_adj") or b"").strip()
    return int(said) if said.lstrip(b"-").isdigit() else None


def _wear(number: int) -> bool:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % number)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
