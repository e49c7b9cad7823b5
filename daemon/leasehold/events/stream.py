"""What is kept of one stream: a head that leaves at once, a tail that leaves in its own time, nothing between. Pure."""

import hashlib
from collections.abc import Iterator
from typing import Any

from leasehold.models import OutputRow, Run, Stream

ROW = 256 * 1024
"""Bytes of one row at most."""


class OutputStream:
    """Offsets are those of the complete output, kept or not. Only the tail is held in memory."""

    def __init__(self, run: Run, name: Stream, sent: int) -> None:
        self._run = run
        self._name = name
        self._sent = sent  # everything before this offset is in the database, on its way there, or dropped
        self._head = run.output_head
        self._tail = run.output_tail
        self._digest = hashlib.sha256()  # of the head
        self._window = bytearray()  # the last bytes behind the head
        self.offset = 0

    def add(self, raw: bytes) -> Iterator[OutputRow]:
        """Count `raw`; the rows of what belongs to the head and is not stored yet."""
        start, self.offset = self.offset, self.offset + len(raw)
        room = max(0, self._head - start)
        if room:
            self._digest.update(raw[:room])
            yield from self._rows(start, raw[:room])
        if len(raw) > room:
            self._hold(raw[room:])

    def tail(self) -> Iterator[OutputRow]:
        """What is in the tail and was not sent yet. What has scrolled out of it meanwhile is never sent."""
        start = self.offset - len(self._window)
        fresh = max(start, self._sent)
        yield from self._rows(fresh, bytes(self._window[fresh - start :]))

    @property
    def caps(self) -> tuple[int, int]:
        """Bytes of head and tail that are kept."""
        return self._head, self._tail

    def cap(self, head: int, tail: int) -> None:
        """Before the first byte: the caps that this run has begun with."""
        self._head, self._tail = head, tail

    def resume(self, offset: int) -> list[tuple[int, int]]:
        """Go on from `offset`. Answers which ranges before it are to be recalled, from what is stored of them."""
        self.offset = offset
        start = max(self._head, offset - self._tail)
        self._window[:] = bytes(max(0, offset - start))  # what is not stored of it scrolls out before the end
        self._sent = max(self._sent, offset)
        return [(first, past) for first, past in ((0, min(offset, self._head)), (start, offset)) if first < past]

    def recall(self, at: int, raw: bytes) -> None:
        """Stored bytes before the offset we go on from, in order."""
        if at < self._head:
            self._digest.update(raw)
        else:
            at -= self.offset - len(self._window)
            self._window[at : at + len(raw)] = raw

    @property
    def unsent(self) -> bool:
        """Is there something in the tail that was not sent?"""
        return bool(self._window) and self._sent < self.offset

    @property
    def kept_from(self) -> int:
        """Where the tail that is kept begins, as things stand."""
        return max(self._head, self.offset - self._tail)

    @property
    def safe_to(self) -> int:
        """What is before this offset is not needed, or stored, or on its way there."""
        return max(self.kept_from, self._sent)

    @property
    def dropped(self) -> tuple[int, int]:
        """The range between head and tail; empty as long as they touch."""
        return self._head, self.kept_from

    @property
    def limit(self) -> int:
        """Output up to here is kept whole; one byte more, and something is dropped."""
        return self._head + self._tail

    @property
    def summary(self) -> dict[str, Any]:
        """Final size, which ranges are kept, and their sha256: how a reader knows that it has all there is."""
        digest = self._digest.copy()
        digest.update(self._window)
        start, end = self.dropped
        kept = [[0, start], [end, self.offset]] if end > start else [[0, self.offset]]
        return {"bytes": self.offset, "sha256": digest.hexdigest(), "kept": kept, "dropped": max(0, end - start)}

    def _hold(self, raw: bytes) -> None:
        if len(raw) >= self._tail:
            self._window[:] = memoryview(raw)[-self._tail :]
            return
        self._window += raw
        if (over := len(self._window) - self._tail) > 0:
            del self._window[:over]

    def _rows(self, start: int, raw: bytes) -> Iterator[OutputRow]:
        for at in range(max(0, self._sent - start), len(raw), ROW):
            piece = raw[at : at + ROW]
            self._sent = start + at + len(piece)
            yield OutputRow(self._run.key, self._name, start + at, piece)
