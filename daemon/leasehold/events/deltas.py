"""Pieces of messages that stream: few rows for many pieces, and so many bytes of them for one run. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from leasehold.models import Event, EventRow, Run

ROOM = 32 << 20
"""Bytes that all pieces of a run may have; what comes behind them is seen when its message is whole."""
PIECE, ANOTHER = 64, 2048
"""Bytes that each piece counts for besides its text, and one of another message than the one before."""
AT_ONCE = 4096
"""Characters of one message up to which its pieces go at once. Behind them a change rewrites much, and must be worth it:"""
SHARE = 32
"""it adds this part of what is there."""


class Deltas:
    """Holds back the newest pieces of one message. Whatever else the run says goes behind them: see `flush`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._held: EventRow | None = None
        self._message: str | None = None  # of which the last piece was
        self._grown = 0  # characters of it so far
        self._spent = 0
        self._cut = False

    def add(self, mark: int, event: Event, size: int) -> Iterator[EventRow]:
        """One piece; what goes because of it. Pieces that the database has are only counted."""
        name, text = event.data.get("id"), event.message
        if not isinstance(name, str) or not name or not text:
            return
        another = name != self._message
        self._spent += len(text) + (ANOTHER if another else PIECE)
        if self._spent > ROOM:
            yield from self._stop(mark)
            return
        if another:
            yield from self.flush()
            self._message, self._grown = name, 0
        self._grown += len(text)
        if mark > self._run.events_mark:
            data = {each: event.data[each] for each in ("id", "role") if each in event.data}
            self._hold(EventRow(self._run.key, mark, Event("delta", text, data), size))

    def settle(self) -> Iterator[EventRow]:
        """There is nothing more for now: what is held goes, if it is worth a change."""
        held = len(self._held.event.message or "") if self._held else 0
        if self._grown <= AT_ONCE or held * SHARE >= self._grown:
            yield from self.flush()

    def flush(self) -> Iterator[EventRow]:
        """Everything that is held goes: the database takes nothing whose mark is lower than what it has."""
        held, self._held = self._held, None
        if held:
            yield held

    def freeze(self) -> Mapping[str, Any]:
        """As JSON."""
        held = self._held and [self._held.mark, self._held.event.message, dict(self._held.event.data), self._held.size]
        return {"held": held, "message": self._message, "grown": self._grown, "spent": self._spent, "cut": self._cut}

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what was held then may have gone since."""
        self._message, self._grown = state["message"], state["grown"]
        self._spent, self._cut = state["spent"], state["cut"]
        if state["held"] and state["held"][0] > self._run.events_mark:
            mark, text, data, size = state["held"]
            self._held = EventRow(self._run.key, mark, Event("delta", text, data), size)

    def _hold(self, row: EventRow) -> None:
        if self._held:
            text = (self._held.event.message or "") + (row.event.message or "")
            row = replace(row, event=replace(row.event, message=text), size=self._held.size + row.size)
        self._held = row

    def _stop(self, mark: int) -> Iterator[EventRow]:
        first, self._cut = not self._cut, True
        yield from self.flush()
        if first and mark > self._run.events_mark:
            message = f"it streamed more than {ROOM} bytes: what it streams now is seen when a message is whole"
            yield EventRow(self._run.key, mark, Event("deltas_dropped", message, {"limit": ROOM}, "warning"))
