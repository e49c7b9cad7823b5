"""Two daemons, two thousand jobs: each job once, everything counted, hardly a notice."""

import asyncpg
import pytest


@pytest.mark.rule("SW1")
@pytest.mark.slow
@pytest.mark.race
async def test_two_daemons_share_a_thousand_jobs(host_at, sql, agent, eventually, dsn):
    await agent("true", "", command=["true"])
    notices = []
    listener = await asyncpg.connect(dsn)
    await listener.add_listener("leasehold", lambda *_: notices.append(1))
    async with host_at("one").daemon(max_runs=8), host_at("two").daemon(max_runs=8):
        notices.clear()
        await sql.execute(
            "insert into leasehold.jobs (agent, prompt) select 'true', 'go' from generate_series(1, 1000)"
        )
        await eventually(
            sql, "select count(*) from leasehold.jobs where status = 'succeeded'", expected=1000, within=110
        )
        heard = len(notices)
    await listener.close()
    assert await sql.fetchval("select count(*) from leasehold.runs") == 1000
    assert await sql.fetchval("select count(distinct job_id) from leasehold.runs where outcome = 'succeeded'") == 1000
    assert await sql.fetchval("select count(distinct worker_id) from leasehold.runs") == 2
    gaps = "select count(*) from (select job_id from leasehold.events group by 1 having max(seq) <> count(*) or min(seq) <> 1) x"
    assert await sql.fetchval(gaps) == 0
    assert await sql.fetchval("select count(*) from leasehold.runs where ended_at is null") == 0
    assert heard <= 12, f"{heard} notices"
