"""A bounded queue of many lanes: whoever floods waits in a lane of its own, and all lanes are served in turn. No I/O."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import Event as Signal
from anyio import move_on_after, sleep

from leasehold.models import EventRow, OutputRow, RunKey, Stream

LANE_BYTES = 1024 * 1024
"""What one run may have waiting."""
TOTAL_BYTES = 16 * 1024 * 1024
"""What all may have waiting together; beyond that, one thing each."""
PAUSE, LONG_PAUSE = 0.25, 4.0
"""Seconds that a lane is left alone whose first thing could not be used, and at most, when it is so again and again."""


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
        self._pauses: dict[int, float] = {}
        self._taken: set[int] = set()
        self.total = 0
        self.aside = 0  # bytes in held lanes: they take no room from the others
        self._closed = False
        self._filled, self._enough, self._room = Signal(), Signal(), Signal()

    async def put(self, item: Item) -> None:
        """Wait for room in the run's lane, and in all."""
        run = item.run.id
        while self._full(run):
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

    def put_back(self, items: Sequence[Item]) -> None:
        """Of what was taken last, in order: what could not be used. It is first in its lane again, which is left alone for a while."""
        held = {item.run.id for item in items}
        for run in self._taken - held:
            self._pauses.pop(run, None)
        for run in held:
            self._hold(run)
        for item in reversed(items):
            self._lanes.setdefault(item.run.id, deque()).appendleft(item)
            self._add(item.run.id, weight(item))
        if held:
            self._make_room()

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """One thing of each lane in turn, until it is enough. Things of one run keep their order."""
        items: list[Item] = []
        heavy = 0
        self._taken = set()
        while len(items) < most and heavy < most_bytes and (run := self._next()) is not None:
            lane = self._lanes.pop(run)
            items.append(lane.popleft())
            self._taken.add(run)
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

    def _full(self, run: int) -> bool:
        mine, all_ = self._weights.get(run, 0), self.aside if run in self._held else self.total
        return mine >= (LANE_BYTES if all_ < TOTAL_BYTES else 1)

    def _add(self, run: int, more: int) -> None:
        self._weights[run] = self._weights.get(run, 0) + more
        if run in self._held:
            self.aside += more
        else:
            self.total += more

    def _hold(self, run: int) -> None:
        pause = self._pauses[run] = min(LONG_PAUSE, 2 * self._pauses.get(run, PAUSE / 2))
        if run not in self._held:
            self.total -= self._weights.get(run, 0)
            self.aside += self._weights.get(run, 0)
        self._held[run] = time.monotonic() + pause

    def _release(self, run: int) -> None:
        del self._held[run]
        self.total += self._weights.get(run, 0)
        self.aside -= self._weights.get(run, 0)

    def _next(self) -> int | None:
        return next((run for run in self._lanes if run not in self._held), None)

    def _served(self) -> bool:
        """Is there a lane to take from? Those that have been left alone for long enough are."""
        now = time.monotonic()
        for run in [run for run, until in self._held.items() if until <= now]:
            self._release(run)
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
