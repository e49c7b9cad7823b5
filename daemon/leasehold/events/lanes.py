"""A bounded queue of many lanes: whoever floods waits in a lane of its own, and all lanes are served in turn. No I/O."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyio import Event as Signal
from anyio import move_on_after

from leasehold.models import EventRow, OutputRow, RunKey, Stream

LANE_BYTES = 1024 * 1024
"""What one run may have waiting."""
TOTAL_BYTES = 16 * 1024 * 1024
"""What all may have waiting together; beyond that, one thing each."""


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
        self.total = 0
        self._closed = False
        self._filled, self._enough, self._room = Signal(), Signal(), Signal()

    async def put(self, item: Item) -> None:
        """Wait for room in the run's lane, and in all."""
        run = item.run.id
        while self._weights.get(run, 0) >= (LANE_BYTES if self.total < TOTAL_BYTES else 1):
            await self._room.wait()
        self._lanes.setdefault(run, deque()).append(item)
        self._weights[run] = self._weights.get(run, 0) + weight(item)
        self.total += weight(item)
        self._filled.set()
        if isinstance(item, Mark) or self._weights[run] >= LANE_BYTES:
            self._enough.set()

    async def filled(self, linger: float) -> bool:
        """Wait for something, then a breath for more, unless somebody waits for it. False: closed, and all is gone."""
        while not self._lanes:
            if self._closed:
                return False
            await self._filled.wait()
        with move_on_after(linger):
            await self._enough.wait()
        return True

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """One thing of each lane in turn, until it is enough. Things of one run keep their order."""
        items: list[Item] = []
        heavy = 0
        while self._lanes and len(items) < most and heavy < most_bytes:
            run, lane = next(iter(self._lanes.items()))
            del self._lanes[run]
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

    def _make_room(self) -> None:
        self._room.set()
        self._room, self._enough = Signal(), Signal()
        if not self._lanes:
            self._filled = Signal()
        if self._closed:
            self._filled.set()
