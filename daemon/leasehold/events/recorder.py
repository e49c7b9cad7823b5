"""One run's words on their way out: bytes in, output rows and events out. If it fails, one run fails."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leasehold.agents.base import Adapter
from leasehold.events.clean import clean, clean_text
from leasehold.events.shipper import Outlet
from leasehold.models import Event, EventRow, OutputRow, Run, Stream
from leasehold.processes.lines import Line, LineReader, Plain
from leasehold.processes.tail import Tail


class OutputStream:
    """The output of one stream: contiguous offsets, a running digest, and what is stored already left out."""

    def __init__(self, run: Run, name: Stream, shipped: int) -> None:
        self._run = run
        self._name = name
        self._shipped = shipped
        self._offset = 0
        self._digest = hashlib.sha256()

    def row(self, raw: bytes) -> OutputRow | None:
        """Count `raw`; the row to send, or None when an earlier life has stored all of it."""
        start, self._offset = self._offset, self._offset + len(raw)
        self._digest.update(raw)
        fresh = max(start, self._shipped)
        if fresh >= self._offset:
            return None
        return OutputRow(self._run.key, self._name, fresh, raw[fresh - start :])

    @property
    def summary(self) -> dict[str, Any]:
        """Final size and sha256 of the output, so that a reader knows when it has all of it."""
        return {"bytes": self._offset, "sha256": self._digest.hexdigest()}


class Recorder:
    """Reads a run's two files from the start: what an earlier life has shipped is only folded again."""

    def __init__(self, run: Run, adapter: Adapter, shipper: Outlet, directory: Path) -> None:
        self._run = run
        self._adapter = adapter
        self._shipper = shipper
        self._lines = LineReader()
        self._sent = False
        self._out = OutputStream(run, "stdout", run.stdout_shipped)
        self._err = OutputStream(run, "stderr", run.stderr_shipped)
        self._tails = Tail(directory / "stdout"), Tail(directory / "stderr")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        for tail in self._tails:
            tail.close()

    async def pump(self) -> bool:
        """Read and pass on one bite of each stream; False when there was nothing."""
        said, complained = self._tails[0].read(), self._tails[1].read()
        if said:
            await self._receive(self._lines.feed(said))
        if complained:
            await self._ship(self._err.row(complained))
        return bool(said or complained)

    async def end(self) -> dict[str, Any]:
        """The tree is gone: read to the end, wait until all is stored; answers the final sizes and digests."""
        while await self.pump():
            pass
        await self._receive(self._lines.end())
        if self._sent:
            await self._shipper.shipped()
        return {"stdout": self._out.summary, "stderr": self._err.summary}

    async def _receive(self, pieces: Iterable[Line | Plain]) -> None:
        plain: list[bytes] = []
        for piece in pieces:
            events = self._adapter.receive(piece.raw) if isinstance(piece, Line) else None
            if events is None:
                plain.append(piece.raw)
                continue
            await self._ship(self._out.row(b"".join(plain)))
            plain.clear()
            assert isinstance(piece, Line)
            for event in events:
                if piece.end > self._run.events_mark:
                    await self._ship(EventRow(self._run.key, piece.end, storable(event)))
        await self._ship(self._out.row(b"".join(plain)))

    async def _ship(self, row: OutputRow | EventRow | None) -> None:
        if row is not None:
            self._sent = True
            await self._shipper.ship(row)


def storable(event: Event) -> Event:
    """The same event, fit for Postgres whatever the agent wrote."""
    message = clean_text(event.message) if event.message is not None else None
    return Event(
        event.kind, message, clean(dict(event.data)), event.level, clean_text(event.phase) if event.phase else None
    )
