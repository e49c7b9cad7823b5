"""Ten thousand queued jobs of a hundred tenants, the short form of `make backlog`: everybody is served in turn, nobody twice before."""

from collections import Counter

import pytest

TENANTS = 100


@pytest.fixture
async def crowd(sql, worker):
    await sql.execute(
        "insert into leasehold.jobs (tenant, agent, prompt) select 't' || g % $1::int, 'fixer', 'x' from generate_series(1, 10000) g",
        TENANTS,
    )
    return worker


async def started(sql):
    rows = await sql.fetch(
        "select j.tenant from leasehold.runs r join leasehold.jobs j on j.id = r.job_id order by r.id"
    )
    return [row[0] for row in rows]


async def end_all(sql, worker):
    for run in await sql.fetch("select id as run_id, token as run_token from leasehold.runs where ended_at is null"):
        await worker.finish(run)


@pytest.mark.rule("SW34")
async def test_every_tenant_has_its_turn_before_anybody_has_a_second(sql, crowd):
    for _ in range(TENANTS // 8):
        assert len(await crowd.claim(8)) == 8
        await end_all(sql, crowd)
    assert set(Counter(await started(sql)).values()) == {1}


async def test_a_newcomer_starts_with_the_next_places(sql, crowd, job, sane):
    for _ in range(5):
        await crowd.claim(8)
    small = await job(tenant="small")
    assert small in [run["job_id"] for run in await crowd.claim(2)]
    await sane()


async def test_a_tenant_with_nearly_all_jobs_gets_no_more_than_one_with_ten(sql, crowd):
    await sql.execute("""
        insert into leasehold.jobs (tenant, agent, prompt) select 'huge', 'fixer', 'x' from generate_series(1, 5000) g;
        insert into leasehold.jobs (tenant, agent, prompt) select 'small', 'fixer', 'x' from generate_series(1, 10) g""")
    for _ in range(32):
        await crowd.claim(8)
    turns = Counter(await started(sql))
    assert abs(turns["huge"] - turns["small"]) <= 1 and max(turns.values()) - min(turns.values()) <= 1


async def test_limits_over_a_crowd_leave_nothing_behind(sql, crowd, sane):
    await sql.execute(
        "insert into leasehold.tenants (name, max_running) select 't' || g, 1 from generate_series(0, 98) g"
    )
    assert len(await crowd.claim(1000)) == 99 + 100
    turns = Counter(await started(sql))
    assert turns.pop("t99") == 100 and set(turns.values()) == {1}
    await sane()
    await end_all(sql, crowd)
    await sql.execute("update leasehold.tenants set max_running = null")
    assert len(await crowd.claim(200)) == 200
    await sane()
