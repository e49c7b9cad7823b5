"""A queue at a glance: counts and the next jobs, of one moment."""

import json

import pytest
from sql.people import NOON


@pytest.fixture
def ask(sql):
    async def one(call, connection=None):
        return json.loads(await (connection or sql).fetchval(f"select leasehold.{call}"))

    return one


@pytest.mark.rule("A86", "G41")
async def test_a_summary_counts_by_state_and_lane_of_one_or_all_queues(sql, worker, clock, job, ask):
    await sql.execute("insert into leasehold.agents (name, command) values ('critic', '{true}')")
    await worker.finish(await worker.claim_job(await job()))
    await worker.claim_job(await job())
    await job(concurrency_key="k")
    await job(concurrency_key="k")
    await job(agent="critic", queue="slow", run_at=NOON.replace(hour=15))
    await clock.forward(seconds=90)
    said = await ask("queue_summary()")
    assert said["by_state"] == {"queued": 1, "deferred": 1, "ahead": 1, "running": 1, "succeeded": 1}
    assert (said["total"], said["oldest_waits_seconds"]) == (4, 90)
    assert [(lane["queue"], lane["agent"], lane["total"]) for lane in said["by_lane"]] == [
        ("default", "fixer", 3),
        ("slow", "critic", 1),
    ]
    slow = await ask("queue_summary('slow')")
    assert (slow["queue"], slow["total"], slow["by_state"]) == ("slow", 1, {"ahead": 1})
    nothing = await ask("queue_summary('nothing')")
    assert (nothing["total"], nothing["by_state"], nothing["by_lane"]) == (0, {}, [])
    view = await sql.fetch("select total, waiting, generated_at from leasehold.queue_stats order by total")
    assert [(row["total"], row["waiting"]) for row in view] == [(1, 0), (3, 0)]
    assert {row["generated_at"] for row in view} == {clock.now}


@pytest.mark.rule("A86", "X20")
async def test_the_cursor_of_a_summary_is_where_changes_go_on(sql, fixer, job, ask):
    await job()
    said = await ask("queue_summary()")
    second = await job()
    rows = await sql.fetch("select job_id from leasehold.changes($1)", said["cursor"])
    assert [row["job_id"] for row in rows] == [second]


@pytest.mark.rule("A87", "AW36", "A84", "G41")
async def test_the_top_is_what_runs_then_what_comes_next_and_never_what_has_ended(sql, worker, clock, job, ask):
    for _ in range(30):
        await sql.execute("select leasehold.cancel($1)", await job(priority=1000))
    running = await job(priority=9)
    await worker.claim_job(running)
    ahead = await job(priority=8, run_at=NOON.replace(hour=15))
    low, high, other = await job(priority=1), await job(priority=7), await job(priority=7, tenant="acme")
    held, behind = await job(queue="slow", concurrency_key="k"), await job(concurrency_key="k")
    said = await ask("queue_top()")
    assert [one["id"] for one in said["top"]] == [running, high, other, low, held, ahead, behind]
    assert said["generated_at"] == (await ask("queue_summary()"))["generated_at"]
    assert said["stats"]["by_state"] == (await ask("queue_summary()"))["by_state"]
    assert [one["id"] for one in (await ask("queue_top('default', 3)"))["top"]] == [running, high, other]
    assert [one["id"] for one in (await ask("queue_top('slow')"))["top"]] == [held]
    assert len((await ask("queue_top(null, 0)"))["top"]) == 1, "limits are brought into their range"
    assert (await ask("queue_top('nothing')"))["top"] == []


async def test_tenants_apart(login, fixer, job, ask, sql):
    await job(tenant="acme")
    theirs = await job(tenant="globex")
    stranger, admin = await login("leasehold_reader", "globex"), await login("leasehold_admin")
    said = await ask("queue_top()", stranger)
    assert ([one["id"] for one in said["top"]], said["stats"]["total"]) == ([theirs], 1)
    assert (await ask("queue_summary()", admin))["total"] == 2


@pytest.mark.rule("GW23")
async def test_nothing_of_a_payload_is_read_for_it(sql, fixer, ask):
    """Payloads are stored out of line; the blocks of that store that are touched are counted."""
    await sql.execute("""
        alter table leasehold.jobs set (autovacuum_enabled = off, toast.autovacuum_enabled = off);
        alter table leasehold.jobs alter column payload set storage external;
        insert into leasehold.jobs (agent, prompt, payload)
        select 'fixer', 'x', jsonb_build_object('text', repeat('x', 100000)) from generate_series(1, 50)""")
    toast = "select coalesce(toast_blks_hit, 0) + coalesce(toast_blks_read, 0) from pg_statio_user_tables where relid = 'leasehold.jobs'::regclass"
    async with sql.transaction():
        await sql.execute("select pg_stat_force_next_flush()")
    before = await sql.fetchval(toast)
    assert len((await ask("queue_top()"))["top"]) == 20
    await sql.execute("select pg_stat_force_next_flush()")
    assert await sql.fetchval(toast) == before
