"""One run's words on their way out: bytes in, output rows and events out. If it fails, one run fails."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anyio import Lock, to_thread

from leasehold.agents.base import Adapter
from leasehold.bell import Bell
from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.events.channel import Channel
from leasehold.events.fold import Fold, StdoutFold
from leasehold.events.lanes import Trim
from leasehold.events.shipper import Outlet
from leasehold.events.stream import ROW
from leasehold.models import EventRow, OutputRow, Run, boottime
from leasehold.processes.keeper import Keeper
from leasehold.processes.tail import Tail

PACE = 1.0
"""Seconds between two looks at a tail that scrolls."""


class Recorder:
    """Reads a run's two files, from the start or from the last checkpoint; what is stored already is only folded again."""

    def __init__(self, run: Run, adapter: Adapter, shipper: Outlet, keeper: Keeper, directory: Path) -> None:
        self._run = run
        self._shipper = shipper
        self._keeper = keeper
        self._said = StdoutFold(run, adapter)
        self._out = Channel(Tail(directory / "stdout"), self._said)
        self._err = Channel(Tail(directory / "stderr"), Fold(run))
        self._channels = self._out, self._err
        self.tails = self._out.tail, self._err.tail
        self._sent = False
        self._capped = run.checkpoint is not None
        self._resumed = run.checkpoint is None
        self._punching = True
        self._scrolled_at = 0.0
        self._written: int | None = None  # bytes of stdout when it was first looked at
        self.folding = Lock()  # who holds it has the adapter for himself
        self.looked = Bell()

    @property
    def caught_up(self) -> bool:
        """Has the adapter heard all that an earlier life of the daemon may have heard?"""
        return self._written is not None and self._out.tail.offset >= self._written

    @property
    def unasked(self) -> bool:
        """Has the agent asked something that nobody will ever see, or answer?"""
        return bool(self._said.unasked)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.tail.close()

    async def pump(self) -> bool:
        """Read and pass on what is there; False when there was nothing."""
        if not self._resumed:
            await self._resume(self._run.checkpoint or {})
        if self._written is None:
            self._written = self._out.tail.offset + self._out.tail.unread
            self.looked.ring()
        moved = False
        while any([await self._step(channel) for channel in self._channels]):
            moved = True
            await self._scroll()
            await self._give_back()
            if not any(channel.bulk for channel in self._channels):
                break
        await self._scroll()
        return moved

    async def end(self) -> dict[str, Any]:
        """The tree is gone: read to the end, wait until all is stored; answers the final sizes and digests."""
        while await self.pump():
            pass
        for channel in self._channels:
            await self._ship(channel.end())
        await self._scroll(last=True)
        if self._sent:
            await self._shipper.shipped(self._run.key)
        return {channel.fold.name: channel.fold.output.summary for channel in self._channels}

    async def _step(self, channel: Channel) -> bool:
        """One turn: small bites here and now, bulk in a thread. Floods take turns, so that they share one core."""
        before = channel.tail.offset
        async with self.folding:
            if channel.bulk:
                rows = await to_thread.run_sync(channel.step, limiter=self._shipper.readers)
            else:
                rows = channel.step()
        if channel.tail.offset > before:
            self.looked.ring()
        await self._ship(rows)
        return channel.tail.offset > before

    async def _scroll(self, *, last: bool = False) -> None:
        """Send what the tails have, at a modest pace, and take back what has scrolled out of them."""
        now = boottime()
        if not last and now - self._scrolled_at < PACE:
            return
        for channel in self._channels:
            output = channel.fold.output
            if not output.unsent and not last:
                continue
            self._scrolled_at = now
            start, end = output.dropped
            if end > start and not self._capped:  # what is dropped now could not be kept by another life's caps
                await self._save()
            await self._ship(output.tail())
            if end > start:
                await self._ship([Trim(self._run.key, channel.fold.name, start, end)])

    async def _give_back(self) -> None:
        """Save from where the run could be taken up; then what is before that leaves the disk."""
        due = [channel for channel in self._channels if channel.due] if self._punching else []
        if not due:
            return
        if not await self._save():
            self._punching = False
            return
        for channel in due:
            place = channel.resumable
            assert place is not None
            await self._punch(channel, place.raw)

    async def _save(self) -> bool:
        self._capped = True
        return await self._shipper.save(self._run.key, {each.fold.name: each.state() for each in self._channels})

    async def _punch(self, channel: Channel, end: int) -> None:
        try:
            self._punching = await self._keeper.punch(self._run.id, channel.fold.name, 0, end)
            channel.freed = end
        except KeeperAway:  # the next checkpoint frees this range as well
            pass
        except KeeperRefused:
            self._punching = False

    async def _resume(self, checkpoint: Mapping[str, Any]) -> None:
        for channel in self._channels:
            if state := checkpoint.get(channel.fold.name):
                for start, end in channel.resume(state):
                    await self._recall(channel.fold, start, end)
        self._resumed = True

    async def _recall(self, fold: Fold, start: int, end: int) -> None:
        """What is stored of this range, once: two lives of a daemon may have cut it differently."""
        at, after = start, start - ROW
        while rows := await self._shipper.stored(self._run.key, fold.name, after, end):
            for offset, raw in rows:
                begin = max(at, offset)
                if piece := raw[begin - offset : end - offset]:
                    fold.output.recall(begin, piece)
                    at = begin + len(piece)
                after = offset

    async def _ship(self, items: Iterable[OutputRow | EventRow | Trim]) -> None:
        for item in items:
            self._sent = True
            await self._shipper.ship(item)
