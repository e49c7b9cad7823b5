"""The bytes of one stream folded into rows: output, events, notices. Pure, so it may run in a thread."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from leasehold.agents.base import Adapter, Guessing
from leasehold.events.asked import ASKS, Unasked
from leasehold.events.clean import WHOLE_LIMIT, clean, clean_text
from leasehold.events.deltas import Deltas
from leasehold.events.mask import mask_of
from leasehold.events.stream import OutputStream
from leasehold.models import Event, EventRow, OutputRow, Run, Stream
from leasehold.processes.lines import LINE_LIMIT, Line, LineReader, Piece, TooLong

Row = OutputRow | EventRow
COUNTED = ("usage", "session")
"""Kinds that count beyond the limit, as far again: what floods must not be free of charge."""
TALKED = (*ASKS, "withdrawn", "turn")
"""Kinds that have the same limit for themselves: whoever floods may ask, and be answered, all the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """From where another fold of the same file can go on: raw and output offset, and what was known there."""

    raw: int
    output: int
    state: Mapping[str, Any]


class Fold:
    """Of stderr: every byte is output."""

    name: Stream = "stderr"

    def __init__(self, run: Run) -> None:
        sent = run.stdout_shipped if self.name == "stdout" else run.stderr_shipped
        self._run = run
        self._hidden = mask_of(run)
        self.output = OutputStream(run, self.name, sent)
        self._sent = sent
        self._told = self._was_told()

    def cap(self, head: int, tail: int) -> None:
        """Before the first byte: the caps that this run has begun with, whatever its agent has by now."""
        self.output.cap(head, tail)
        self._told = self._was_told()

    def feed(self, raw: bytes) -> list[Row]:
        """What these bytes add to what is to be stored."""
        return self._add(self._hidden.hide(raw))

    def end(self) -> list[Row]:
        """The stream has ended; what the tail still has to send is not part of this."""
        return self._add(self._hidden.rest())

    def _add(self, raw: bytes) -> list[Row]:
        rows, notices = self._keep([(self.output.offset, raw)]) if raw else ([], [])
        return [*rows, *notices]

    def place(self) -> Place | None:
        """Where we are; None: nobody could go on from here."""
        return Place(self.output.offset, self.output.offset, {"told": self._told})

    def resume(self, place: Place) -> list[tuple[int, int]]:
        """Be at `place`. Answers which ranges of the output before it are to be recalled."""
        self._told |= bool(place.state["told"])  # an earlier life may have told it behind this place
        return self.output.resume(place.output)

    def _keep(self, pieces: Sequence[tuple[int, bytes]]) -> tuple[list[OutputRow], list[EventRow]]:
        """Output with its raw offsets, in order: what to send of it, and the notice when the first byte is dropped."""
        before, notices = self.output.offset, []
        rows = list(self.output.add(pieces[0][1] if len(pieces) == 1 else b"".join(raw for _, raw in pieces)))
        if before <= self.output.limit < self.output.offset and not self._told:
            self._told = True
            notices = [self._notice(_raw_offset(pieces, self.output.limit - before) + 1)]
        return rows, [row for row in notices if row.mark is None or row.mark > self._run.events_mark]

    def _was_told(self) -> bool:
        """Of stderr its notice went before the first byte behind the limit; of stdout its mark says it."""
        return self.name == "stderr" and self._sent > self.output.limit

    def _notice(self, mark: int) -> EventRow:
        head, tail = self.output.caps
        message = (
            f"{self.name} is longer than {self.output.limit} bytes: only its first {head} and"
            f" its last {tail} bytes are kept"
        )
        data = {"stream": self.name, "output_head": head, "output_tail": tail}
        event = Event("output_truncated", message, data, "warning")
        return EventRow(self._run.key, mark if self.name == "stdout" else None, event)  # marks count stdout


class StdoutFold(Fold):
    """Of stdout: lines that the adapter knows are events, the rest is output."""

    name: Stream = "stdout"

    def __init__(self, run: Run, adapter: Adapter) -> None:
        super().__init__(run)
        self._adapter = adapter
        self._lines = LineReader()
        self._limit = run.events_limit
        self._said = 0  # events so far, kept or not
        self._talked = 0  # of them those of TALKED
        self._cut = False  # one was dropped, and a notice said so
        self.unasked = Unasked()
        self._deltas = Deltas(run)

    def feed(self, raw: bytes) -> list[Row]:
        """Output first: an event never refers to bytes that a reader cannot see yet."""
        return self._receive(self._lines.resume[0], self._lines.feed(self._hidden.hide(raw)))

    def end(self) -> list[Row]:
        """What was held back is whole."""
        last = chain(self._lines.feed(self._hidden.rest()), self._lines.end())
        return [*self._receive(self._lines.resume[0], last), *self._deltas.flush()]

    def place(self) -> Place | None:
        """Needs an adapter that can be frozen, in a state that can be written down."""
        raw, inside = self._lines.resume
        try:
            # as text: jsonb has no place for NUL, lone surrogates and NaN, which an agent may well have said
            frozen = self._adapter.freeze()
            adapter = json.dumps(frozen) if frozen is not None else None
        except (ValueError, RecursionError):
            return None
        if adapter is None:
            return None
        said = {"said": self._said, "events_limit": self._limit, "cut": self._cut, "deltas": self._deltas.freeze()}
        said |= {"talked": self._talked, "unasked": self.unasked.freeze()}
        return Place(raw, self.output.offset, {"told": self._told, "inside": inside, "adapter": adapter, **said})

    def resume(self, place: Place) -> list[tuple[int, int]]:
        """Be at `place`. Answers which ranges of the output before it are to be recalled."""
        self._lines = LineReader(place.raw, inside=bool(place.state["inside"]))
        self._adapter.thaw(json.loads(place.state["adapter"]))
        self._said, self._limit = int(place.state["said"]), int(place.state["events_limit"])
        self._cut = bool(place.state.get("cut", self._said > self._limit))
        self._talked, self.unasked = int(place.state.get("talked", 0)), Unasked(place.state.get("unasked", ()))
        if "deltas" in place.state:  # not of a daemon that knew none
            self._deltas.thaw(place.state["deltas"])
        return super().resume(place)

    def _receive(self, at: int, pieces: Iterator[Piece]) -> list[Row]:
        plain: list[tuple[int, bytes]] = []
        said: list[EventRow] = []
        for piece in pieces:
            if isinstance(piece, TooLong):
                before = self.output.offset + sum(len(raw) for _, raw in plain)
                guessed = self._adapter.glimpse(piece.head) if isinstance(self._adapter, Guessing) else ()
                said += self._events(piece.end, [*guessed, _too_long(before)], 0)
                continue
            at += len(piece.raw)
            events = self._adapter.receive(piece.raw) if isinstance(piece, Line) else None
            if events is None:
                plain.append((at - len(piece.raw), piece.raw))
            else:
                said += self._events(at, events, len(piece.raw))
        rows, notices = self._keep(plain) if plain else ([], [])
        said += self._deltas.flush() if notices else self._deltas.settle()
        # by mark: the database takes an event for a repeat if it has a higher mark already
        return [*rows, *sorted([*said, *notices], key=lambda row: row.mark or 0)]

    def _counts(self, kind: str) -> bool:
        """One more of that kind: is there room for it?"""
        self._said += 1
        if kind in TALKED:
            self._talked += 1
            return self._talked <= self._limit
        return self._said <= (2 * self._limit if kind in COUNTED else self._limit)

    def _events(self, end: int, events: Sequence[Event], size: int) -> Iterator[EventRow]:
        """Events of one line, each with a mark of its own among the line's bytes; the last one's is its end.

        The first one that is over the limit is replaced by a notice, those behind it are only counted. Pieces of messages have a limit
        of their own.
        """
        for mark, event in enumerate(events, end - len(events) + 1):
            if event.kind == "delta":
                yield from self._deltas.add(mark, storable(event), size)
                continue
            yield from self._deltas.flush()
            counts = self._counts(event.kind)
            self.unasked.see(event, told=counts)
            first_cut, self._cut = not counts and not self._cut, self._cut or not counts
            if (counts or first_cut) and mark > self._run.events_mark:
                yield EventRow(self._run.key, mark, storable(event) if counts else _too_many(self._limit), size)


def _too_long(offset: int) -> Event:
    message = f"a line that begins like an event is longer than {LINE_LIMIT} bytes: it is kept as output"
    return Event("line_too_long", message, {"limit": LINE_LIMIT, "output_offset": offset}, "warning")


def _too_many(limit: int) -> Event:
    message = f"it said more than {limit} events: those behind are dropped, but its result counts"
    return Event("events_truncated", message, {"limit": limit}, "warning")


def _raw_offset(pieces: Sequence[tuple[int, bytes]], index: int) -> int:
    """Raw offset of the `index`th byte of these pieces."""
    for start, raw in pieces:
        if index < len(raw):
            return start + index
        index -= len(raw)
    raise AssertionError("no such byte")


def storable(event: Event) -> Event:
    """The same event, fit for Postgres whatever the agent wrote."""
    message = clean_text(event.message) if event.message is not None else None
    data = clean(dict(event.data))
    if event.kind == "artifact" and isinstance(content := event.data.get("content"), str):
        data["content"] = clean_text(content, WHOLE_LIMIT)
    return Event(event.kind, message, data, event.level, clean_text(event.phase) if event.phase else None)
