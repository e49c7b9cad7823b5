"""Lanes: what was put back is first again, takes no room from others, and is left alone for longer each time."""

from types import SimpleNamespace
from uuid import UUID

import anyio
import pytest
from leasehold.events import lanes as rooms
from leasehold.events.lanes import LANE_BYTES, TOTAL_BYTES, Lanes
from leasehold.models import OutputRow, RunKey


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rooms, "time", SimpleNamespace(monotonic=lambda: now[0]))  # not the loop's
    return now


def row(run, number=0, size=1):
    return OutputRow(RunKey(run, UUID(int=run)), "stdout", number, b"x" * size)


def taken(lanes):
    return [(item.run.id, item.offset) for item in lanes.take(100, 1 << 30)]


async def test_what_was_put_back_comes_first_in_order_when_its_pause_is_over(clock):
    lanes = Lanes()
    for number in range(3):
        await lanes.put(row(1, number))
        await lanes.put(row(2, number))
    items = lanes.take(4, 1 << 30)
    lanes.put_back([item for item in items if item.run.id == 1])
    await lanes.put(row(1, 3))
    assert taken(lanes) == [(2, 2)]
    with anyio.move_on_after(0.1) as waiting:
        await lanes.filled(0.0)
    assert waiting.cancelled_caught, "there is nothing to take before its pause is over"
    clock[0] += 1
    assert await lanes.filled(0.0)
    assert taken(lanes) == [(1, 0), (1, 1), (1, 2), (1, 3)]


async def test_it_is_left_alone_for_longer_each_time_until_it_could_be_used(clock):
    lanes, pauses = Lanes(), []
    await lanes.put(row(1))
    for _ in range(6):
        lanes.put_back(lanes.take(1, 1))
        pauses.append(lanes._held[1] - clock[0])
        clock[0] += 10
        assert await lanes.filled(0.0)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    lanes.take(1, 1)
    lanes.put_back([])
    await lanes.put(row(1))
    lanes.put_back(lanes.take(1, 1))
    assert lanes._held[1] - clock[0] == 0.25


async def test_held_lanes_are_bounded_and_take_no_room_from_the_others(clock):
    lanes = Lanes()
    full = TOTAL_BYTES // LANE_BYTES + 1
    for run in range(full):
        await lanes.put(row(run, size=LANE_BYTES))
    lanes.put_back(lanes.take(full, 1 << 30))
    for number in range(3):
        with anyio.fail_after(5):
            await lanes.put(row(999, number, size=1000))
    with anyio.move_on_after(0.05) as waiting:
        await lanes.put(row(0, 1))
    assert waiting.cancelled_caught
    assert lanes.total < LANE_BYTES < TOTAL_BYTES < lanes.aside


async def test_closed_lanes_are_served_to_the_end_also_those_that_were_held():
    lanes = Lanes()
    await lanes.put(row(1))
    lanes.put_back(lanes.take(1, 1))
    lanes.close()
    assert await lanes.filled(0.0)
    assert taken(lanes) == [(1, 0)]
    assert not await lanes.filled(0.0)
