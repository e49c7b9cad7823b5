"""A bounded queue of many lanes: whoever floods waits in a lane of its own, and all lanes are served in turn. No I/O."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anyio import Event as Signal
from anyio import move_on_after, sleep

from leasehold.models import EventRow, OutputRow, RunKey, Stream

LANE_BYTES = 1024 * 1024
"""What one run may have waiting."""
TOTAL_BYTES = 16 * 1024 * 1024
"""What all may have waiting together; beyond that, one thing each."""
PAUSE = 1.0
"""Seconds that a lane is left alone whose first thing could not be taken."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Stored output in [start, end) has scrolled out of the tail that is kept."""

    run: RunKey
    stream: Stream
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a daemon that takes the run up may go on reading: everything said before it is stored before it."""

    run: RunKey
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Set once everything that its run had queued before is stored."""

    run: RunKey
    stored: Signal


Item = EventRow | OutputRow | Trim | Checkpoint | Mark


def weight(item: Item) -> int:
    """Bytes it holds, roughly."""
    if isinstance(item, OutputRow):
        return 256 + len(item.raw)
    return 512 + 3 * item.size if isinstance(item, EventRow) else 256  # decoded JSON is larger than its line


class Lanes:
    """One lane per run, in the order in which they are to be served."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Item]] = {}
        self._weights: dict[int, int] = {}
        self._held: dict[int, float] = {}  # lanes that are left alone, and until when
        self.total = 0
        self._closed = False
        self._filled, self._enough, self._room = Signal(), Signal(), Signal()

    async def put(self, item: Item) -> None:
        """Wait for room in the run's lane, and in all."""
        run = item.run.id
        while self._weights.get(run, 0) >= (LANE_BYTES if self.total < TOTAL_BYTES else 1):
            await self._room.wait()
        self._lanes.setdefault(run, deque()).append(item)
        self._add(run, weight(item))
        if run in self._held:
            return
        self._filled.set()
        if isinstance(item, Mark) or self._weights[run] >= LANE_BYTES:
            self._enough.set()

    async def filled(self, linger: float) -> bool:
        """Wait for something, then a breath for more, unless somebody waits for it. False: closed, and all is gone."""
        while not self._served():
            if self._closed and not self._lanes:
                return False
            await self._something()
        with move_on_after(linger):
            await self._enough.wait()
        return True

    def put_back(self, items: Iterable[Item]) -> None:
        """Things that were taken and could not be used, in order: the first of their lanes again, which are left alone for a while."""
        for item in reversed(list(items)):
            run = item.run.id
            self._lanes.setdefault(run, deque()).appendleft(item)
            self._add(run, weight(item))
            self._held[run] = time.monotonic() + PAUSE
        if not self._served():
            self._filled = Signal()

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """One thing of each lane in turn, until it is enough. Things of one run keep their order."""
        items: list[Item] = []
        heavy = 0
        while len(items) < most and heavy < most_bytes and (run := self._next()) is not None:
            lane = self._lanes.pop(run)
            items.append(lane.popleft())
            heavy += weight(items[-1])
            self._weights[run] -= weight(items[-1])
            if lane:
                self._lanes[run] = lane  # behind the others
            else:
                del self._weights[run]
        self.total -= heavy
        self._make_room()
        return items

    def close(self) -> None:
        """Nothing more will be put in."""
        self._closed = True
        self._filled.set()
        self._enough.set()

    def _add(self, run: int, more: int) -> None:
        self._weights[run] = self._weights.get(run, 0) + more
        self.total += more

    def _next(self) -> int | None:
        return next((run for run in self._lanes if run not in self._held), None)

    def _served(self) -> bool:
        """Is there a lane to take from? Those that have been left alone for long enough are."""
        now = time.monotonic()
        self._held = {run: until for run, until in self._held.items() if until > now}
        return self._next() is not None

    async def _something(self) -> None:
        """Wait for a thing in a lane that is not held, or for the end of a pause."""
        pause = max(0.0, min(self._held.values()) - time.monotonic()) if self._held else None
        if self._closed and pause is not None:  # nothing more will come in
            await sleep(pause)
            return
        with move_on_after(pause):
            await self._filled.wait()

    def _make_room(self) -> None:
        self._room.set()
        self._room, self._enough = Signal(), Signal()
        if self._next() is None:
            self._filled = Signal()
        if self._closed:
            self._filled.set()
