"""Bytes to lines: the cut depends on the bytes alone, nothing is lost, and nothing is held without bound."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leasehold.processes import lines
from leasehold.processes.lines import Line, LineReader, Plain, TooLong
from leasehold.processes.tail import BITE, Tail

LIMIT = 16


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch):
    monkeypatch.setattr(lines, "LINE_LIMIT", LIMIT)


def read(*bites):
    """All pieces of a stream that was read in these bites; neighbouring output is joined."""
    reader, found = LineReader(), []
    pieces = [piece for bite in bites for piece in reader.feed(bite)] + list(reader.end())
    for piece in pieces:
        if isinstance(piece, Plain) and found and isinstance(found[-1], Plain):
            found[-1] = Plain(found[-1].raw + piece.raw)
        else:
            found.append(piece)
    assert reader.offset == sum(map(len, bites))
    return found


WORDS = st.sampled_from(
    [
        b"{",
        b"}",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"{}\n",
        b"x",
        b"\x00",
        b"\xff",
        b'{"a":1}\n',
        b"\n\n",
        b"{" + b"y" * LIMIT,
    ]
)
STREAMS = st.lists(WORDS | st.binary(max_size=6), max_size=30).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=12))
def test_however_a_stream_is_cut_its_pieces_are_the_same(stream, cuts):
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    bites = [stream[a:b] for a, b in pairwise(edges)]
    assert read(*bites) == read(stream)


@given(STREAMS)
def test_byte_by_byte_is_the_same_as_at_once(stream):
    assert read(*(bytes([byte]) for byte in stream)) == read(stream)


@given(STREAMS)
def test_no_byte_is_lost_or_invented(stream):
    assert b"".join(piece.raw for piece in read(stream) if not isinstance(piece, TooLong)) == stream


@given(STREAMS, st.integers(0, 200))
def test_a_reader_goes_on_where_another_one_was(stream, cut):
    first = LineReader()
    seen = [*first.feed(stream[:cut])]
    at, inside = first.resume
    second = LineReader(at, inside=inside)
    rest = [*second.feed(stream[at:]), *second.end()]
    assert second.offset == len(stream)
    whole = [piece for piece in read(stream) if not isinstance(piece, Plain)]
    assert [piece for piece in [*seen, *rest] if not isinstance(piece, Plain)] == whole
    assert b"".join(piece.raw for piece in rest if not isinstance(piece, TooLong)) == stream[at:]


@given(STREAMS)
def test_a_line_knows_its_end_in_the_stream(stream):
    for piece in read(stream):
        if isinstance(piece, Line):
            assert stream[: piece.end].endswith(piece.raw)


@given(STREAMS)
def test_a_replay_gives_the_same_marks(stream):
    marks = [piece.end for piece in read(stream) if isinstance(piece, Line)]
    assert marks == sorted(set(marks))


@pytest.mark.rule("X26")
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_what_is_held_is_never_more_than_one_line(bites):
    reader, given_back = LineReader(), 0
    for bite in bites:
        given_back += sum(len(piece.raw) for piece in reader.feed(bite) if not isinstance(piece, TooLong))
        blank_held = reader._held and not reader._held.strip(lines.BLANK)
        assert blank_held or reader.offset - given_back <= LIMIT


def test_blanks_without_end_are_not_held_without_bound():
    reader, given_back = LineReader(), 0
    for _ in range(1000):
        given_back += sum(len(piece.raw) for piece in reader.feed(b" " * LIMIT))
    assert reader.offset - given_back <= LIMIT


@pytest.mark.parametrize(
    ("stream", "pieces"),
    [
        (b"", []),
        (b"hello\n", [Plain(b"hello\n")]),
        (b'{"a":1}\n', [Line(b'{"a":1}\n', 8)]),
        (b'{"a":1}', [Line(b'{"a":1}', 7)]),
        (b'  {"a":1}\r\n', [Line(b'  {"a":1}\r\n', 11)]),
        (b"no newline", [Plain(b"no newline")]),
        (b"\x00{}\n", [Plain(b"\x00{}\n")]),
        (b"\xff\xfe\n{}\n", [Plain(b"\xff\xfe\n"), Line(b"{}\n", 6)]),
        (b'say {"a":1}\n', [Plain(b'say {"a":1}\n')]),
        (b"\n\n{}\n", [Plain(b"\n\n"), Line(b"{}\n", 5)]),
        (b"[1]\n", [Plain(b"[1]\n")]),
    ],
)
def test_a_line_that_begins_like_an_object_may_be_an_event_all_else_is_output(stream, pieces):
    assert read(stream) == pieces


def test_a_line_at_the_limit_may_be_an_event_and_one_byte_more_is_output():
    fits = b"{" + b"x" * (LIMIT - 2) + b"\n"
    assert read(fits) == [Line(fits, LIMIT)]
    long = b"{" + b"x" * (LIMIT - 1) + b"\n"
    assert read(long, b"{}\n") == [TooLong(LIMIT, long[:LIMIT]), Plain(long), Line(b"{}\n", LIMIT + 4)]


def test_a_line_over_the_limit_is_passed_on_before_it_ends():
    assert list(LineReader().feed(b"{" + b"x" * LIMIT))


def test_a_tail_reads_a_growing_file_in_bites(tmp_path):
    with Tail(tmp_path / "stdout") as tail:
        assert tail.read() == b""
        (tmp_path / "stdout").write_bytes(b"a" * BITE + b"b")
        assert (len(tail.read()), tail.read(), tail.read()) == (BITE, b"b", b"")
        with (tmp_path / "stdout").open("ab") as file:
            file.write(b"c")
        assert (tail.read(), tail.offset) == (b"c", BITE + 2)


def test_a_tail_that_was_closed_goes_on_where_it_was(tmp_path):
    (tmp_path / "stdout").write_bytes(b"ab")
    tail = Tail(tmp_path / "stdout")
    assert tail.read() == b"ab"
    tail.close()
    tail.close()
    with (tmp_path / "stdout").open("ab") as file:
        file.write(b"c")
    with tail:
        assert tail.read() == b"c"


def test_a_file_that_the_agent_cut_short_is_no_endless_loop(tmp_path):
    (tmp_path / "stdout").write_bytes(b"abc")
    with Tail(tmp_path / "stdout") as tail:
        assert tail.read() == b"abc"
        (tmp_path / "stdout").write_bytes(b"")
        assert tail.read() == b""
