"""An agent that waits for a human: its clocks stand still, its place may go to another one."""

import asyncio
from datetime import timedelta

import pytest

pytestmark = pytest.mark.race

SECOND = timedelta(seconds=1)


async def test_while_a_human_is_waited_for_no_clock_of_the_agent_runs(host, talks, insert, ends):
    await talks.agent(idle_timeout=3 * SECOND, total_timeout=6 * SECOND, linger_timeout=SECOND)
    async with host.daemon():
        job = await insert("chat", "ask:rm say:1")
        asked = await talks.asked(job)
        await asyncio.sleep(7)
        await talks.answer(asked)
        await ends(job, "succeeded")
    suspects = "select count(*) from leasehold.events where job_id = $1 and kind = 'suspect'"
    assert await talks.sql.fetchval(suspects, job) == 0


async def test_what_a_human_took_does_not_count_in_the_next_life_either(host, talks, insert, ends):
    await talks.agent(total_timeout=6 * SECOND)
    async with host.daemon() as daemon:
        job = await insert("chat", "ask:rm ask:ls say:1")
        asked = await talks.asked(job)
        await asyncio.sleep(6.5)
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await asyncio.sleep(0.5)
        await talks.answer(asked)
        await talks.answer(await talks.asked(job, "ls"))
        await ends(job, "succeeded")


@pytest.mark.rule("X25")
async def test_the_agents_own_time_counts_before_and_behind_a_humans(host, talks, insert, ends):
    await talks.agent(total_timeout=6 * SECOND)
    async with host.daemon():
        job = await insert("chat", "ask:rm wait:60")
        asked = await talks.asked(job)
        await asyncio.sleep(3)
        await talks.answer(asked)
        await ends(job, "timed_out")
    assert await talks.ending(job) == ("timed_out", "total")


@pytest.mark.rule("X25")
async def test_an_agent_that_is_silent_once_it_is_answered_is_stopped_as_ever(host, talks, insert, ends):
    await talks.agent(idle_timeout=3 * SECOND)
    async with host.daemon():
        job = await insert("chat", "ask:rm until:never")
        await talks.answer(await talks.asked(job))
        await ends(job, "timed_out")
    assert await talks.ending(job) == ("timed_out", "idle")


@pytest.mark.parametrize("policy", ["release", "keep"])
async def test_who_waits_for_a_human_gives_up_its_place_if_its_row_says_so(host, talks, insert, ends, policy):
    await talks.agent(while_waiting=policy)
    async with host.daemon(max_runs=1):
        first = await insert("chat", "ask:rm say:1")
        asked = await talks.asked(first)
        second = await insert("chat", "say:1")
        if policy == "release":
            await ends(second, "succeeded")
        await talks.answer(asked)
        await ends(first, "succeeded")
        await ends(second, "succeeded")
    order = "select job_id from leasehold.runs order by ended_at"
    ended = [row["job_id"] for row in await talks.sql.fetch(order)]
    assert ended == ([second, first] if policy == "release" else [first, second])
