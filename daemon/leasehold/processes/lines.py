"""Bytes to lines, bounded: which bytes of a stream may be an event, and which are plain output. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT = 1024 * 1024
"""Bytes a line may have and still be an event; a longer one is output."""

BLANK = b" \t\r"


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line that begins like a JSON object, and the offset in the raw stream just behind it."""

    raw: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Bytes that can only be output."""

    raw: bytes


class LineReader:
    """Splits a stream. The cut depends only on the bytes, never on how they were read, so a replay repeats it."""

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line of which it is not known yet what it is
        self._plain = False  # inside a line that is output
        self._offset = 0

    @property
    def offset(self) -> int:
        """Bytes of the raw stream that were fed."""
        return self._offset

    def feed(self, data: bytes) -> Iterator[Line | Plain]:
        """What `data` adds. Output is passed on at once; a line that may be an event is held until it ends."""
        base = self._offset - len(self._held)
        self._offset += len(data)
        rest, self._held = self._held + data, b""
        while rest:
            head, newline, tail = rest.partition(b"\n")
            piece = head + newline
            if self._plain or not _may_be_object(head):
                if not newline and not self._plain and len(piece) <= LINE_LIMIT and not head.strip(BLANK):
                    self._held = piece
                    return
                yield Plain(piece)
                self._plain = not newline
            elif newline and len(piece) <= LINE_LIMIT:
                yield Line(piece, base + len(piece))
            elif not newline and len(piece) <= LINE_LIMIT:
                self._held = piece
                return
            else:
                yield Plain(piece)
                self._plain = not newline
            base += len(piece)
            rest = tail

    def end(self) -> Iterator[Line | Plain]:
        """The stream has ended: what was held is whole, newline or not."""
        if self._held:
            held, self._held = self._held, b""
            yield Line(held, self._offset) if _may_be_object(held) else Plain(held)


def _may_be_object(head: bytes) -> bool:
    return head.lstrip(BLANK).startswith(b"{")
