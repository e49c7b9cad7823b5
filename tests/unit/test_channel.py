"""A file that is read in two lives, with a hole where the first one has been, gives what one life would have made of it."""

import hashlib
import json
import random
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from leasehold.agents.command import CommandAdapter
from leasehold.events import channel as channels
from leasehold.events.channel import Channel
from leasehold.events.fold import Fold, StdoutFold
from leasehold.models import EventRow, OutputRow, Run, RunKey
from leasehold.processes.tail import Tail

RUN = Run(
    key=RunKey(1, UUID(int=1)), job_id=1, attempt=1, tenant="t", queue="q", agent="a", adapter="command", command=(),
    env={}, workspace=None, launcher=(), prompt="", payload={}, limits={}, stop_grace=timedelta(0), total_timeout=None,
    status="running", started_at=None, cancel_requested=False, stdout_shipped=0, stderr_shipped=0, events_mark=-1,
    output_head=20_000, output_tail=5_000, events_limit=250,
)  # fmt: skip


class Stored:
    """What a database would have of a run."""

    def __init__(self):
        self.output, self.said, self.checkpoint = {}, [], None

    def take(self, rows):
        for row in rows:
            if isinstance(row, OutputRow):
                self.output.setdefault(row.offset, row.raw)
            elif isinstance(row, EventRow):
                self.said.append((row.event, row.mark))

    def trim(self, start, end):
        for at in [at for at, raw in self.output.items() if start <= at and at + len(raw) <= end]:
            if at != max(self.output):
                del self.output[at]

    @property
    def shipped(self):
        return max((at + len(raw) for at, raw in self.output.items()), default=0)


def wrote(chance):
    """Some output, some events; one of them prevails for a while."""
    lines = []
    for number in range(600):
        if chance.random() < (0.1, 0.9)[number // 100 % 2]:
            lines.append(b"word %d %s\n" % (number, b"x" * chance.randrange(200)))
        else:
            lines.append(
                json.dumps({"type": "progress", "n": number, "fill": "y" * chance.randrange(400)}).encode() + b"\n"
            )
    return b"".join(lines)


def life(path, fold, stored, steps, chance):
    """Read on for so many steps, save and trim now and then; the file loses what was saved. Answers the channel."""
    channel = Channel(Tail(path), fold)
    if stored.checkpoint:
        recall(channel, stored)
    for _ in range(steps):
        stored.take(channel.step(chance.randrange(1, 4000)))
        if chance.random() < 0.1:
            stored.take(channel.fold.output.tail())
            stored.trim(*channel.fold.output.dropped)
        if chance.random() < 0.2:
            state = channel.state()
            stored.checkpoint = json.loads(json.dumps(state))
            with path.open("r+b") as file:
                file.write(bytes(state.get("raw", 0)))
    return channel


def recall(channel, stored):
    for start, end in channel.resume(stored.checkpoint):
        for at, raw in piece_by_piece(stored, start, end):
            channel.fold.output.recall(at, raw)


def piece_by_piece(stored, start, end):
    at = start
    for offset, raw in sorted(stored.output.items()):
        begin = max(at, offset)
        if offset < end and (piece := raw[begin - offset : end - offset]):
            yield begin, piece
            at = begin + len(piece)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", [Fold, StdoutFold])
def test_however_often_its_reader_dies_what_is_kept_is_what_one_life_would_have_kept(tmp_path, monkeypatch, seed, kind):
    monkeypatch.setattr(channels, "STRIDE", 1000)
    monkeypatch.setattr(channels, "BITE", 1)
    monkeypatch.setattr(Tail.read, "__defaults__", (700,))
    chance = random.Random(seed)
    text, path = wrote(chance), tmp_path / "file"

    def fold(stored):
        marks = [mark for _, mark in stored.said if mark is not None]
        sent = {
            "events_mark": max(marks, default=-1),
            "stdout_shipped": stored.shipped,
            "stderr_shipped": stored.shipped,
        }
        run = replace(RUN, **sent)
        return kind(run, CommandAdapter()) if kind is StdoutFold else kind(run)

    ends = []
    for lives in (0, 5):
        path.write_bytes(text)
        stored = Stored()
        for _ in range(lives):
            life(path, fold(stored), stored, chance.randrange(120), chance).tail.close()
        channel = life(path, fold(stored), stored, 0, chance)
        while channel.tail.unread:
            stored.take(channel.step())
        stored.take([*channel.end(), *channel.fold.output.tail()])
        stored.trim(*channel.fold.output.dropped)
        channel.tail.close()
        summary = channel.fold.output.summary
        kept = b"".join(raw for start, end in summary["kept"] for _, raw in piece_by_piece(stored, start, end))
        assert hashlib.sha256(kept).hexdigest() == summary["sha256"]
        ends.append((summary, kept, stored.said if kind is StdoutFold else None))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("first", [60_000, 26_000])
@pytest.mark.parametrize(
    "changed", [{"output_head": 40_000}, {"output_head": 10_000}, {"output_tail": 100}, {"output_tail": 9_000}]
)
def test_caps_that_are_changed_while_it_runs_are_for_later_runs(tmp_path, monkeypatch, first, changed):
    """With a place to go on from, and without one."""
    monkeypatch.setattr(channels, "STRIDE", 30_000)
    monkeypatch.setattr(Tail.read, "__defaults__", (700,))
    text, path, stored = b"0123456789" * 8_000, tmp_path / "file", Stored()
    for run, written in ((RUN, first), (replace(RUN, **changed), len(text))):
        path.write_bytes(text[:written])
        channel = Channel(Tail(path), Fold(replace(run, stderr_shipped=stored.shipped)))
        if stored.checkpoint:
            recall(channel, stored)
        while channel.tail.unread:
            stored.take(channel.step(1))
            stored.take(channel.fold.output.tail())
            stored.trim(*channel.fold.output.dropped)
        stored.checkpoint = channel.state()
        channel.tail.close()
    assert channel.fold.output.summary == {
        "bytes": 80_000, "sha256": hashlib.sha256(text[:20_000] + text[75_000:]).hexdigest(),
        "kept": [[0, 20_000], [75_000, 80_000]], "dropped": 55_000,
    }  # fmt: skip
    assert b"".join(raw for _, raw in piece_by_piece(stored, 0, 80_000) if raw)[:20_000] == text[:20_000]
    assert b"".join(raw for _, raw in piece_by_piece(stored, 75_000, 80_000)) == text[75_000:]
    assert [event.data["output_head"] for event, _ in stored.said] == [20_000]


def test_the_notice_of_stderr_is_given_once_though_the_checkpoint_is_older_than_it(tmp_path, monkeypatch):
    """It has no mark by which the database could know it again."""
    monkeypatch.setattr(channels, "STRIDE", 1000)
    monkeypatch.setattr(Tail.read, "__defaults__", (700,))
    path, stored = tmp_path / "file", Stored()
    path.write_bytes(b"x" * 40_000)
    for until in (40_000, 60_000):
        channel = Channel(Tail(path), Fold(replace(RUN, stderr_shipped=stored.shipped)))
        if stored.checkpoint:
            recall(channel, stored)
        while channel.tail.unread and channel.tail.offset < until:
            stored.take(channel.step(1))
            stored.take(channel.fold.output.tail())
            if channel.tail.offset < 10_000:
                stored.checkpoint = channel.state()
        channel.tail.close()
    assert "raw" in stored.checkpoint
    assert [event.kind for event, _ in stored.said] == ["output_truncated"]
