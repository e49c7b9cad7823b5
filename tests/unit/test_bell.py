"""The bell: no ring is lost, many are one, and waiting ends."""

import asyncio

import anyio
from leasehold.bell import Bell


async def test_a_ring_while_nobody_waits_is_kept():
    bell = Bell()
    bell.ring()
    assert await bell.wait(at_most=0)


async def test_many_rings_count_as_one():
    bell = Bell()
    for _ in range(5):
        bell.ring()
    assert await bell.wait(at_most=0)
    assert not await bell.wait(at_most=0.01)


async def test_a_ring_wakes_the_waiter_at_once():
    bell = Bell()
    asyncio.get_running_loop().call_later(0.02, bell.ring)
    with anyio.fail_after(5):
        assert await bell.wait(at_most=60)


async def test_silence_ends_the_wait_and_is_told_apart():
    assert not await Bell().wait(at_most=0.01)


async def test_a_ring_during_the_look_is_there_for_the_next_wait():
    bell = Bell()
    bell.ring()
    await bell.wait(at_most=0)
    bell.ring()  # something changed while the waiter looked
    assert await bell.wait(at_most=0)


async def test_a_cancelled_wait_does_not_swallow_the_ring():
    bell = Bell()
    with anyio.move_on_after(0.01):
        await bell.wait(at_most=60)
    bell.ring()
    assert await bell.wait(at_most=0)
