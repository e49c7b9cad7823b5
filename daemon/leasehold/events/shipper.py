"""Carry output and events of many runs into few statements. If it fails, the daemon fails."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import structlog
from anyio import CapacityLimiter, move_on_after, sleep
from anyio import Event as Signal

from leasehold import metrics
from leasehold.db.away import Refusal
from leasehold.db.calls import Database
from leasehold.errors import RunHeld
from leasehold.events.lanes import Checkpoint, Item, Lanes, Mark, Trim
from leasehold.loops import background
from leasehold.models import Event, EventRow, OutputRow, RunKey, Stream

log = structlog.get_logger()

BATCH = 500
"""Rows of one batch at most."""
BATCH_BYTES = 4 * 1024 * 1024
"""Output bytes of one batch at most; with the lanes it bounds what the daemon holds in memory."""
LAST_WORDS = 10.0
"""Seconds for what is in the lanes when the daemon leaves."""
LINGER = 0.02
"""Seconds to wait for more rows before a batch is sent."""

Row = TypeVar("Row", EventRow, OutputRow, Trim, Checkpoint)


class Outlet(Protocol):
    """Where a recorder's rows go."""

    readers: CapacityLimiter
    """Whoever reads in bulk takes turns with the others who do, so that floods share one core."""

    async def ship(self, item: EventRow | OutputRow | Trim) -> None:
        """Take one thing."""

    async def shipped(self, run: RunKey) -> None:
        """Return once everything of this run that was taken so far is in the database."""

    async def save(self, run: RunKey, state: Mapping[str, Any]) -> bool:
        """Store a checkpoint and all that came before it; False: it could not be."""

    async def stored(self, run: RunKey, stream: Stream, after: int, past: int) -> list[tuple[int, bytes]]:
        """Some of the rows that begin behind `after` and before `past`, in order; none: there are no more."""


class Shipper:
    """Bounded: when Postgres is slow the lanes fill, the tails stop reading, and the files wait on disk."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lanes = Lanes()
        self._unsaved: set[int] = set()
        self._held: set[int] = set()  # runs of the batch at hand of which nothing can be written now
        self._sent: set[int] = set()  # what of that batch is in the database, by id()
        self.refused: set[int] = set()
        self.emptied = Signal()  # after close()
        self.readers = CapacityLimiter(1)

    @property
    def backlog(self) -> int:
        """Bytes in the lanes, roughly."""
        return self._lanes.total

    async def ship(self, item: EventRow | OutputRow | Trim | Checkpoint) -> None:
        """Queue one thing. What is said of a run that the database has refused is dropped."""
        if item.run.id not in self.refused:
            await self._lanes.put(item)

    async def shipped(self, run: RunKey) -> None:
        """Return once everything that this run has queued so far is in the database."""
        mark = Mark(run, Signal())
        await self._lanes.put(mark)
        await mark.stored.wait()

    async def save(self, run: RunKey, state: Mapping[str, Any]) -> bool:
        """Store a checkpoint and all that came before it; False: it could not be."""
        self._unsaved.discard(run.id)
        await self.ship(Checkpoint(run, state))
        await self.shipped(run)
        return run.id not in self.refused | self._unsaved

    async def stored(self, run: RunKey, stream: Stream, after: int, past: int) -> list[tuple[int, bytes]]:
        """Some of the rows that begin behind `after` and before `past`, in order; none: there are no more."""
        return await self._db.patiently(self._db.read_output, run, stream, after, past)

    def forget(self, run: RunKey) -> None:
        """The run is over: no more is coming of it."""
        self.refused.discard(run.id)
        self._unsaved.discard(run.id)

    def close(self) -> None:
        """No more rows; the loop ends when the lanes are empty."""
        self._lanes.close()

    async def ship_until_closed(self) -> None:
        """The loop: a first row, a breath, whatever else is there, a statement for each kind."""
        await self._ship_all()
        self.emptied.set()

    async def _ship_all(self) -> None:
        while await self._lanes.filled(LINGER):
            items = self._lanes.take(BATCH, BATCH_BYTES)
            self._held, self._sent = set(), set()
            # output first: an event never refers to bytes that a reader cannot see yet
            await self._send([item for item in items if isinstance(item, OutputRow)], self._db.append_output)
            await self._send([item for item in items if isinstance(item, EventRow)], self._db.append_events)
            await self._send([item for item in items if isinstance(item, Trim)], self._trim)
            # last: what was said before a checkpoint is not read again by whoever starts from it
            await self._send([item for item in items if isinstance(item, Checkpoint)], self._save)
            self._answer(items)

    def _answer(self, items: Sequence[Item]) -> None:
        """What was sent is stored; what a held run has said besides goes behind what waits of it."""
        for item in items:
            if isinstance(item, Mark) and item.run.id not in self._held:
                item.stored.set()
            elif isinstance(item, OutputRow) and id(item) in self._sent:
                metrics.OUTPUT_BYTES.inc(len(item.raw))
        self._lanes.put_back([item for item in items if item.run.id in self._held and id(item) not in self._sent])

    async def _trim(self, rows: Sequence[Trim]) -> set[int]:
        return await self._db.trim_output([(row.run, row.stream, row.start, row.end) for row in rows])

    async def _save(self, rows: Sequence[Checkpoint]) -> set[int]:
        newest = {row.run: row.state for row in rows}
        return await self._db.save_checkpoints(list(newest.items()))

    async def _send(self, rows: Sequence[Row], call: Callable[[Sequence[Row]], Awaitable[set[int]]]) -> None:
        while rows := [row for row in rows if row.run.id not in self._held]:
            try:
                self.refused |= await self._db.patiently(call, rows)
            except RunHeld:
                await self._look_who_is_held({row.run.id for row in rows})
                continue
            except Refusal as error:
                if len(rows) > 1:  # one bad row must not take the others with it
                    for row in rows:
                        await self._send([row], call)
                    return
                log.warning("event_unstorable", run_id=rows[0].run.id, error=str(error))
                await self._replace(rows[0])
            self._sent.update(id(row) for row in rows if row.run.id not in self._held)
            return

    async def _look_who_is_held(self, runs: set[int]) -> None:
        """Somebody's open transaction holds jobs: what their runs say waits for it, and what the others say does not."""
        held = await self._db.patiently(self._db.held_runs, sorted(runs))
        self._held |= held
        if not held:  # it was only a moment
            await sleep(LINGER)

    async def _replace(self, row: Item) -> None:
        """What Postgres will not take is named instead of lost silently."""
        if isinstance(row, Checkpoint):
            self._unsaved.add(row.run.id)
        if isinstance(row, EventRow) and row.event.kind != "unparsed":
            stand_in = Event("unparsed", f"a {row.event.kind} event could not be stored", level="warning")
            await self._send([EventRow(row.run, row.mark, stand_in)], self._db.append_events)


@asynccontextmanager
async def open_shipper(db: Database) -> AsyncIterator[Shipper]:
    """A shipper at work. Leaving the block waits until its lanes are empty, but not for ever: the files have it all."""
    shipper = Shipper(db)
    async with background() as group:
        group.start_soon(shipper.ship_until_closed)
        yield shipper
        shipper.close()
        with move_on_after(LAST_WORDS):
            await shipper.emptied.wait()
