"""Bytes to lines, bounded and fast: which bytes of a stream may be an event, and which are plain output. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT = 1024 * 1024
"""Bytes a line may have and still be an event; a longer one is output."""
HEAD = 32 * 1024
"""Bytes of a longer one that are shown with it."""

BLANK = b" \t\r"
BEGINS = re.compile(rb"[ \t\r]*\{")
NEXT = re.compile(rb"\n[ \t\r]*\{")


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line that begins like a JSON object, and the offset in the raw stream just behind it."""

    raw: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Bytes that can only be output."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that begins like a JSON object, so, is over the limit from `end` on. Its bytes follow as output."""

    end: int
    head: bytes


Piece = Line | Plain | TooLong


class LineReader:
    """Splits a stream. The cut depends only on the bytes, never on how they were read, so a replay repeats it."""

    def __init__(self, offset: int = 0, *, inside: bool = False) -> None:
        self._held = b""  # the beginning of a line of which it is not known yet what it is
        self._inside = inside  # a line that is output
        self._offset = offset

    @property
    def offset(self) -> int:
        """Bytes of the raw stream that were fed."""
        return self._offset

    @property
    def resume(self) -> tuple[int, bool]:
        """What a new reader needs to go on from here: the first byte to feed it, and whether that is inside a line."""
        return self._offset - len(self._held), self._inside

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What `data` adds. Output is passed on at once; a line that may be an event is held until it ends."""
        base, at = self._offset - len(self._held), 0
        self._offset += len(data)
        rest, self._held = self._held + data, b""
        while at < len(rest):
            begin = self._candidate(rest, at)
            if begin < 0:
                yield from self._output(rest, at)
                return
            if begin > at:
                yield Plain(rest[at:begin])
            self._inside = False
            end = rest.find(b"\n", begin) + 1
            at = end or len(rest)
            if at - begin > LINE_LIMIT:
                yield from self._overlong(rest[begin:at], base + begin)
                self._inside = not end
            elif end:
                yield Line(rest[begin:end], base + end)
            else:
                self._held = rest[begin:]

    def end(self) -> Iterator[Piece]:
        """The stream has ended: what was held is whole, newline or not."""
        if self._held:
            held, self._held = self._held, b""
            yield Line(held, self._offset) if BEGINS.match(held) else Plain(held)

    def _candidate(self, rest: bytes, at: int) -> int:
        """Where the next line begins that may be an event; -1: none does. Bulk output costs one search for a brace."""
        if not self._inside and BEGINS.match(rest, at):
            return at
        brace = rest.find(b"{", at)
        if brace < 0:
            return -1
        found = NEXT.search(rest, max(at, rest.rfind(b"\n", at, brace)))
        return found.start() + 1 if found else -1

    def _output(self, rest: bytes, at: int) -> Iterator[Plain]:
        """No candidate from `at` on; but a last line of blanks may still become one."""
        newline = rest.rfind(b"\n", at)
        last = newline + 1 if newline >= 0 else len(rest) if self._inside else at
        self._inside = (
            (newline < 0 and self._inside) or bool(rest[last:].lstrip(BLANK)) or len(rest) - last > LINE_LIMIT
        )
        if self._inside:
            last = len(rest)
        self._held = rest[last:]
        if last > at:
            yield Plain(rest[at:last])

    @staticmethod
    def _overlong(line: bytes, start: int) -> Iterator[TooLong | Plain]:
        if line.find(b"{", 0, LINE_LIMIT) >= 0:  # else it was passed on as blanks before its brace was seen
            yield TooLong(start + LINE_LIMIT, line[: min(HEAD, LINE_LIMIT)])
        yield Plain(line)
