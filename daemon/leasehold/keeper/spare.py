"""Descriptors held back for the rounds: a kill waits for none that others have. If it fails, a kill waits for one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

COUNT = 8
"""More than a round has open at once."""


class Spare:
    """Held, until they are lent to whoever must not go without."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._take()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """In here so many more can be opened."""
        while self._held:
            os.close(self._held.pop())
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with suppress(OSError):  # as many as there are; the rest another time
            while len(self._held) < COUNT:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
