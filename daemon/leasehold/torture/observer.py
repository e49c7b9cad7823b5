"""Looks at /proc from outside: who carries a mark in its argv. Trusts nothing of Leasehold. If it fails, nothing is proved."""

import os
from collections import Counter
from pathlib import Path

from anyio import sleep

GONE = b"ZXx"
PAUSE = 0.1


def marked(word: str) -> list[tuple[int, str]]:
    """Living processes with an argument that contains `word`: pid and that argument."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 names are all we need
    return [(int(pid), mark) for pid in pids if (mark := _mark(pid, word.encode())) is not None]


def _mark(pid: str, word: bytes) -> str | None:
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        state = Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return None
    return next((each.decode(errors="replace") for each in words if word in each and state not in GONE), None)


class Observer:
    """Counts, again and again, the processes of each mark."""

    def __init__(self, word: str) -> None:
        self._word = word
        self.most: Counter[str] = Counter()
        self.now: Counter[str] = Counter()

    def look(self) -> None:
        """Once."""
        self.now = Counter(mark for _, mark in marked(self._word))
        for mark, count in self.now.items():
            self.most[mark] = max(self.most[mark], count)

    async def look_forever(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await sleep(PAUSE)
