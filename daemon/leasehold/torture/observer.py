"""Looks at /proc from outside: who carries a mark in its argv. Trusts nothing of Leasehold. If it fails, nothing is proved."""

import os
from collections import Counter
from pathlib import Path

from anyio import current_time, sleep

GONE = b"ZXx"
PAUSE = 0.1


def marked(word: str) -> list[tuple[int, str]]:
    """Living processes with an argument that contains `word`: pid and that argument."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 names are all we need
    return [(int(pid), mark) for pid in pids if (mark := _mark(pid, word.encode())) is not None]


def _mark(pid: str, word: bytes) -> str | None:
    try:
        line = Path("/proc", pid, "cmdline").read_bytes()
        if word not in line or Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()[0] in GONE:
            return None
    except (OSError, IndexError):
        return None
    return next(each.decode(errors="replace") for each in line.split(b"\0") if word in each)


class Observer:
    """Counts, again and again, the processes of each mark; touches the file of a mark once its whole family was seen."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._families: dict[str, int] = {}
        self.most: Counter[str] = Counter()
        self.now: Counter[str] = Counter()

    def await_family(self, mark: str, size: int) -> None:
        """From now on, say so when `size` processes of `mark` live at once."""
        self._families[mark] = size

    def look(self) -> None:
        """Once."""
        self.now = Counter(mark for _, mark in marked(self._word))
        for mark, count in self.now.items():
            self.most[mark] = max(self.most[mark], count)
            if count >= self._families.get(mark, 1):
                Path(mark).touch()

    async def look_forever(self) -> None:
        """Until cancelled; never more than a third of the time, or on a busy host nobody would get round to judging."""
        while True:
            began = current_time()
            self.look()
            await sleep(max(PAUSE, 2 * (current_time() - began)))
