"""Pieces of messages: few rows, in order, exactly once whoever dies, and never more than their room."""

import json
import random
from dataclasses import replace

import pytest
from leasehold.agents.command import CommandAdapter
from leasehold.events import deltas
from leasehold.events.fold import StdoutFold
from unit.test_channel import RUN


def piece(text, name="m"):
    return json.dumps({"type": "delta", "id": name, "text": text}).encode() + b"\n"


def said(rows):
    return [(row.event.kind, row.event.data.get("id"), row.event.message) for row in rows]


def fold(**more):
    return StdoutFold(replace(RUN, **more), CommandAdapter())


@pytest.mark.rule("S89")
def test_pieces_that_are_read_together_are_one_row_with_the_mark_of_the_last():
    lines = piece("a") + piece("b") + piece("c", "n") + piece("d", "n") + piece("e")
    rows = fold().feed(lines)
    assert said(rows) == [("delta", "m", "ab"), ("delta", "n", "cd"), ("delta", "m", "e")]
    assert rows[-1].mark == len(lines)
    assert [row.mark for row in rows] == sorted(row.mark for row in rows)


def test_what_else_is_said_goes_behind_the_pieces_before_it():
    rows = fold().feed(piece("a") + b'{"type": "progress", "text": "p"}\n' + piece("b"))
    assert said(rows) == [("delta", "m", "a"), ("progress", None, "p"), ("delta", "m", "b")]


@pytest.mark.rule("SW36")
def test_pieces_are_no_events_that_count_but_have_a_room_of_their_own(monkeypatch):
    monkeypatch.setattr(deltas, "ROOM", 10_000)
    one = fold(events_limit=2)
    rows = one.feed(
        b"".join(piece("x" * 100) for _ in range(200)) + b'{"type": "message", "id": "m", "text": "whole"}\n'
    )
    assert [row.event.kind for row in rows] == ["delta", "deltas_dropped", "message"]
    assert 2_000 < len(rows[0].event.message) < 10_000
    assert rows[1].event.level == "warning"
    assert said(one.feed(piece("y", "n"))) == []


def test_each_new_message_costs_room(monkeypatch):
    monkeypatch.setattr(deltas, "ROOM", 100_000)
    rows = fold().feed(b"".join(piece("x", str(n)) for n in range(10_000)))
    assert len(rows) < 60 and rows[-1].event.kind == "deltas_dropped"


def test_a_long_message_grows_in_larger_steps_and_nothing_stays_behind():
    one, steps, whole = fold(), [], ""
    for n in range(3_000):
        word = f"word {n} "
        whole += word
        steps += one.feed(piece(word))
    steps += one.end()
    assert "".join(row.event.message for row in steps) == whole
    assert len(steps) < 600
    rewritten = sum(len("".join(row.event.message for row in steps[: n + 1])) for n in range(len(steps)))
    assert rewritten < 100 * len(whole), "quadratic: each change writes the whole text"


class Stored:
    """What a database would have: the text, the highest mark, and from where a next life may go on."""

    def __init__(self):
        self.text, self.mark, self.place = "", -1, None

    def take(self, rows):
        for row in rows:
            assert row.mark > self.mark, "it would be taken for a repeat"
            self.mark = row.mark
            self.text += row.event.message if row.event.kind == "delta" else ""


def life(file, stored, chance):
    """Read on until it dies or is through; True: it is."""
    one, at = fold(events_mark=stored.mark, events_limit=10_000), 0
    if stored.place:
        one.resume(stored.place)
        at = stored.place.raw
    while at < len(file):
        raw = file[at : at + chance.randrange(1, 3_000)]
        at += len(raw)
        rows = one.feed(raw)
        if chance.random() < 0.05:
            stored.take(rows[: chance.randrange(len(rows) + 1)])
            return False
        stored.take(rows)
        if chance.random() < 0.1:
            place = one.place()
            stored.place = replace(place, state=json.loads(json.dumps(place.state)))
    stored.take(one.end())
    return True


@pytest.mark.parametrize("seed", range(30))
def test_however_often_its_reader_dies_each_piece_counts_once(seed):
    chance = random.Random(seed)
    lines, whole = [], ""
    for n in range(3_000):
        if chance.random() < 0.02:
            lines.append(json.dumps({"type": "progress", "n": n}).encode() + b"\n")
        else:
            whole += (word := f"{n}{'.' * chance.randrange(30)} ")
            lines.append(piece(word))
    stored = Stored()
    while not life(b"".join(lines), stored, chance):
        pass
    assert stored.text == whole


def test_any_text_and_any_other_shape():
    one = fold()
    assert said(one.feed(b'{"type": "delta", "id": "m", "text": "\\u0000\\ud800"}\n')) == [("delta", "m", "\ufffd?")]
    assert one.feed(b'{"type": "delta", "id": 7, "text": "x"}\n')[0].raw, "no id, no piece: output"
