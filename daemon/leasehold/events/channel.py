"""One file of a run on its way into rows: read, folded, and from where it could be taken up. If it fails, one run fails."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from leasehold.events.fold import Fold, Place, Row
from leasehold.processes.tail import BITE, Tail

BULK = 64 * 1024
"""Unread bytes from which on reading is left to a thread; less is done at once."""
MOST = 8 * 1024 * 1024
"""Bytes read at one turn."""
STRIDE = 4 * 1024 * 1024
"""Raw bytes between two places that are remembered."""
WORTH = 16 * 1024 * 1024
"""Bytes worth a checkpoint: so many may stay on the disk although nobody needs them."""
PLACES = 256


class Channel:
    """Its methods are called by one at a time, some of them in a thread."""

    def __init__(self, tail: Tail, fold: Fold) -> None:
        self.tail = tail
        self.fold = fold
        self.freed = 0  # up to here, what no one needs any more was given back to the disk
        self._places: deque[Place] = deque()

    @property
    def bulk(self) -> bool:
        """Is so much waiting that it is not for the event loop?"""
        return self.tail.unread >= BULK

    def step(self, most: int = MOST) -> list[Row]:
        """Read and fold, until there is something to send, nothing to read, or `most` has been read."""
        stop, rows = self.tail.offset + most, list[Row]()
        while not rows and self.tail.offset < stop and (raw := self.tail.read()):
            rows = self.fold.feed(raw)
            self._remember()
            if len(raw) < BITE:
                break
        return rows

    def end(self) -> list[Row]:
        """All was read."""
        return self.fold.end()

    @property
    def resumable(self) -> Place | None:
        """The newest place whose output before it is stored or not needed any more."""
        first = self._places[0] if self._places else None
        return first if first is not None and first.output <= self.fold.output.safe_to else None

    @property
    def due(self) -> bool:
        """Could enough be given back to the disk to be worth a checkpoint?"""
        place = self.resumable
        return place is not None and place.raw - self.freed >= WORTH

    def state(self) -> Mapping[str, Any]:
        """The caps, and `resumable` and what belongs to it, as JSON."""
        place, (head, tail) = self.resumable, self.fold.output.caps
        caps = {"head": head, "tail": tail}
        return {**caps, "raw": place.raw, "output": place.output, **place.state} if place is not None else caps

    def resume(self, state: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Jump over the hole and go on. Answers which ranges of the output before it are to be recalled."""
        self.fold.cap(state["head"], state["tail"])
        if "raw" not in state:
            return []
        place = Place(state["raw"], state["output"], state)
        self.tail.offset = place.raw
        self._places.append(place)
        return self.fold.resume(place)

    def _remember(self) -> None:
        output = self.fold.output
        last = self._places[-1].raw if self._places else 0
        if self.tail.offset - last >= STRIDE and (place := self.fold.place()) is not None:
            self._places.append(place)
        while len(self._places) > 1 and self._places[1].output <= output.safe_to:
            self._places.popleft()
        if len(self._places) > PLACES:  # little output between many events: remember every other place
            self._places = deque(list(self._places)[::2])
