"""Cancel by SQL alone."""

import asyncio
import time
from datetime import timedelta

import pytest
from support.host import alive

pytestmark = pytest.mark.race


@pytest.mark.rule("X8")
async def test_a_queued_job_ends_at_once_without_a_daemon(sql, agent, insert):
    await agent("any", "true")
    job = await insert("any")
    assert await sql.fetchval("select leasehold.cancel($1, 'changed my mind')", job) == "cancelled"
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "cancelled"


@pytest.mark.rule("SW6", "AW25", "AW27", "P78", "PW9", "PW10", "X15")
async def test_an_agent_that_ignores_term_is_gone_with_all_its_children(host, sql, agent, insert, ends, tmp_path):
    pids = tmp_path / "pids"
    await agent(
        "stubborn",
        f"trap '' TERM; echo $$ >>{pids}; (sleep 300 & echo $! >>{pids}; wait) & setsid sh -c 'trap \"\" TERM; echo $$ >>{pids}; sleep 300; true' &"
        " while true; do sleep 0.2; done",
        stop_grace=timedelta(seconds=1),
    )
    async with host.daemon():
        job = await insert("stubborn")
        await ends(job, "running")
        while not pids.exists() or len(pids.read_text().split()) < 3:
            await asyncio.sleep(0.02)
        found = [int(pid) for pid in pids.read_text().split()]
        asked = time.monotonic()
        assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
        assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
        while await sql.fetchval("select status from leasehold.jobs where id = $1", job) != "cancelled":
            assert any(alive(pid) for pid in found) or time.monotonic() - asked < 10
            await asyncio.sleep(0.01)
        took = time.monotonic() - asked
        assert not [pid for pid in found if alive(pid)], "it said cancelled before the processes were gone"
    assert 1.0 <= took < 3.0
    assert host.strays() == []


@pytest.mark.rule("PW7")
async def test_a_job_that_had_succeeded_before_the_stop_stays_succeeded_or_is_cancelled_never_both(
    host, sql, agent, insert, eventually
):
    await agent("quick", "sleep 0.05")
    async with host.daemon():
        jobs = [await insert("quick") for _ in range(20)]
        for job in jobs:
            try:
                await sql.fetchval("select leasehold.cancel($1)", job)
            except Exception as error:
                assert getattr(error, "sqlstate", "") == "LH021", error
        await eventually(sql, "select count(*) from leasehold.jobs where finished_at is null", expected=0)
    twice = "select count(*) from (select job_id from leasehold.events where kind in ('succeeded', 'cancelled') group by 1 having count(*) > 1) x"
    assert await sql.fetchval(twice) == 0
