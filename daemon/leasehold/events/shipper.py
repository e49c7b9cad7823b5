"""Carry output and events of many runs into few statements. If it fails, the daemon fails."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import structlog
from anyio import EndOfStream, WouldBlock, create_memory_object_stream, create_task_group, sleep
from anyio import Event as Mark

from leasehold.db.away import Refusal
from leasehold.db.calls import Database
from leasehold.models import Event, EventRow, OutputRow, RunKey

log = structlog.get_logger()

BATCH = 500
"""Rows of one batch at most."""
BATCH_BYTES = 4 * 1024 * 1024
"""Output bytes of one batch at most; with the queue it bounds what the daemon holds in memory."""
LINGER = 0.02
"""Seconds to wait for more rows before a batch is sent."""

Item = EventRow | OutputRow | Mark
Row = TypeVar("Row", EventRow, OutputRow)


class Outlet(Protocol):
    """Where a recorder's rows go."""

    async def ship(self, item: EventRow | OutputRow) -> None:
        """Take one row."""

    async def shipped(self) -> None:
        """Return once everything taken so far is in the database."""


class Shipper:
    """Bounded: when Postgres is slow the queue fills, the tails stop reading, and the files wait on disk."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._inlet, self._outlet = create_memory_object_stream[Item](64)
        self.refused: set[int] = set()

    async def ship(self, item: EventRow | OutputRow) -> None:
        """Queue one row. Rows of a run that the database has refused are dropped."""
        if item.run.id not in self.refused:
            await self._inlet.send(item)

    async def shipped(self) -> None:
        """Return once everything queued so far is in the database."""
        mark = Mark()
        await self._inlet.send(mark)
        await mark.wait()

    def forget(self, run: RunKey) -> None:
        """The run is over: no more is coming of it."""
        self.refused.discard(run.id)

    def close(self) -> None:
        """No more rows; the loop ends when the queue is empty."""
        self._inlet.close()

    async def ship_until_closed(self) -> None:
        """The loop: first row, a breath, whatever else is there, two statements."""
        async for first in self._outlet:
            if not isinstance(first, Mark):  # somebody waits for a mark: what is queued behind it can follow
                await sleep(LINGER)
            items = [first, *self._at_hand(_weight(first))]
            # output first: an event never refers to bytes that a reader cannot see yet
            await self._send([item for item in items if isinstance(item, OutputRow)], self._db.append_output)
            await self._send([item for item in items if isinstance(item, EventRow)], self._db.append_events)
            for item in items:
                if isinstance(item, Mark):
                    item.set()

    def _at_hand(self, weight: int) -> list[Item]:
        items: list[Item] = []
        while len(items) < BATCH and weight < BATCH_BYTES:
            try:
                items.append(self._outlet.receive_nowait())
            except (WouldBlock, EndOfStream):
                break
            weight += _weight(items[-1])
        return items

    async def _send(self, rows: Sequence[Row], call: Callable[[Sequence[Row]], Awaitable[set[int]]]) -> None:
        if not rows:
            return
        try:
            self.refused |= await self._db.patiently(call, rows)
        except Refusal as error:
            if len(rows) > 1:  # one bad row must not take the others with it
                for row in rows:
                    await self._send([row], call)
                return
            log.warning("event_unstorable", run_id=rows[0].run.id, error=str(error))
            await self._replace(rows[0])

    async def _replace(self, row: EventRow | OutputRow) -> None:
        """What Postgres will not take is named instead of lost silently."""
        if isinstance(row, EventRow) and row.event.kind != "unparsed":
            stand_in = Event("unparsed", f"a {row.event.kind} event could not be stored", level="warning")
            await self._send([EventRow(row.run, row.mark, stand_in)], self._db.append_events)


def _weight(item: Item) -> int:
    return len(item.raw) if isinstance(item, OutputRow) else 512


@asynccontextmanager
async def open_shipper(db: Database) -> AsyncIterator[Shipper]:
    """A shipper at work. Leaving the block waits until its queue is empty."""
    shipper = Shipper(db)
    async with create_task_group() as group:
        group.start_soon(shipper.ship_until_closed)
        yield shipper
        shipper.close()
