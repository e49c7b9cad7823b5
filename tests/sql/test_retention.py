"""What is kept how long, and how it goes: whole jobs, never a part of them, never a live one, and nobody waits for it."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

HANGS = ("jobs", "heads", "events", "runs", "output")


@pytest.fixture
def kept(sql):
    """Change a rule: `await kept("jobs", days=30)`; without days: for ever."""

    async def change(what, days=None, batch=200):
        keep = timedelta(days=days) if days is not None else None
        await sql.execute("update leasehold.retention set keep = $2, batch = $3 where what = $1", what, keep, batch)

    return change


@pytest.fixture
async def only(sql, kept):
    """One rule alone: the others keep for ever."""

    async def one(what, days, batch=200):
        await sql.execute("update leasehold.retention set keep = null")
        await kept(what, days, batch)

    return one


@pytest.fixture
def past(sql, worker, job, clock):
    """Jobs that have succeeded, each with output and an event of its agent."""

    async def make(many=1, **columns):
        jobs = [await job(**columns) for _ in range(many)]
        for run in await worker.claim(many):
            await worker.say((run, 1, "hello"))
            await worker.ship((run, "stdout", 0, b"abc"), (run, "stdout", 3, b"def"))
            await worker.finish(run)
        return jobs

    return make


@pytest.fixture
def rows(sql):
    """How many rows hang on each of these jobs: {job: (jobs, heads, events, runs, output)}."""

    async def count(*jobs):
        def of(table):
            column = "id" if table == "jobs" else "job_id"
            return f"(select count(*) from leasehold.{table} t where t.{column} = one.id)"

        found = await sql.fetch(
            f"select one.id, {', '.join(f'{of(table)} as {table}' for table in HANGS)} from unnest($1::bigint[]) one (id)",
            jobs,
        )
        return {row["id"]: tuple(row[table] for table in HANGS) for row in found}

    return count


NOTHING = (0, 0, 0, 0, 0)


async def sweep(worker, sql=None):
    """All rules until nothing is left, as a daemon does: {rule: rows}."""
    swept, after = {}, None
    while True:
        row = await (sql or worker.sql).fetchrow(
            "select * from leasehold.sweep_retention($1, $2, $3)", *worker.me, after
        )
        if row is None:
            return {what: many for what, many in swept.items() if many}
        swept[row["what"]] = swept.get(row["what"], 0) + row["removed"]
        if not row["more"]:
            after = row["what"]


@pytest.mark.rule("X33")
async def test_an_old_job_goes_with_all_that_hangs_on_it_and_a_younger_one_stays(
    sql, clock, hire, worker, past, rows, only, sane
):
    [old] = await past()
    await clock.forward(days=20)
    worker.id, worker.token = (await hire()).me
    [young] = await past()
    await clock.forward(days=15)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    before = await rows(young)
    assert await sweep(sweeper) == {"jobs": 1}
    assert await rows(old, young) == {old: NOTHING, **before}
    assert await sweep(sweeper) == {}
    await sane()


async def test_keep_null_is_for_ever(clock, hire, past, rows, sql):
    jobs = await past(3)
    before = await rows(*jobs)
    await sql.execute("update leasehold.retention set keep = null")
    await clock.forward(days=10000)
    assert await sweep(await hire(instance="beta")) == {}
    assert await rows(*jobs) == before


@pytest.mark.rule("X33")
async def test_nothing_of_a_live_job_goes_however_old_it_is(sql, clock, hire, worker, job, rows, only, kept, sane):
    queued, deferred_first, deferred = await job(), await job(concurrency_key="k"), await job(concurrency_key="k")
    running, failed_once = await job(priority=9), await job(priority=8, max_attempts=5)
    runs = await worker.claim(2)
    await worker.say((runs[1], 1, "hello"))
    await worker.ship((runs[1], "stdout", 0, b"abc"))
    await worker.fail(runs[1])
    jobs = [queued, deferred_first, deferred, running, failed_once]
    before = await rows(*jobs)
    assert before[failed_once][-1] == 1
    await clock.forward(days=365)
    for what in ("jobs", "output", "events"):
        await kept(what, 0)
    assert await sweep(await hire(instance="beta")) == {}
    assert await rows(*jobs) == before
    await sane()


async def test_output_goes_before_the_job_and_the_job_still_tells_its_story(sql, clock, hire, past, rows, only, story):
    [job] = await past()
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("output", 30)
    assert await sweep(sweeper) == {"output": 2}
    assert (await rows(job))[job][-2:] == (1, 0)
    assert (await story(job))[-1] == "succeeded"
    assert await sql.fetch("select * from leasehold.why($1)", job)


async def test_events_may_go_before_the_job_all_but_the_last_and_the_numbers_go_on(
    sql, clock, hire, worker, job, only, look
):
    failed = await job()
    await worker.fail(await worker.claim_one())
    seq = await sql.fetchval("select seq from leasehold.heads where job_id = $1", failed)
    await clock.forward(days=40)
    await only("events", 30)
    assert await sweep(await hire(instance="beta")) == {"events": seq - 1}
    assert (await look(failed))["status"] == "failed"
    await sql.execute("select leasehold.retry($1)", failed)
    left = await sql.fetch("select seq, kind from leasehold.events where job_id = $1 order by seq", failed)
    assert [tuple(row) for row in left] == [(seq, "failed"), (seq + 1, "retried")]


@pytest.mark.rule("SW28", "X33")
@pytest.mark.parametrize(("batch", "taken"), [(3, 3), (0, 1), (-7, 1), (1_000_000, 10)])
async def test_a_batch_is_bounded_whatever_the_rule_says(sql, clock, hire, past, only, batch, taken):
    await past(10)
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30, batch)
    row = await sql.fetchrow("select * from leasehold.sweep_retention($1, $2)", *sweeper.me)
    assert (row["what"], row["removed"]) == ("jobs", taken)
    assert await sweep(sweeper) == ({"jobs": 10 - taken} if taken < 10 else {})


async def test_a_batch_ends_early_when_it_has_many_events(sql, clock, hire, past, only):
    jobs = await past(5)
    await sql.execute("update leasehold.heads set seq = 15000 where job_id = any($1)", jobs)
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    row = await sql.fetchrow("select * from leasehold.sweep_retention($1, $2)", *sweeper.me)
    assert (row["removed"], row["more"]) == (2, True)
    assert await sweep(sweeper) == {"jobs": 3}


async def test_many_that_ended_at_one_moment_all_go(sql, clock, hire, past, only):
    await past(10)  # the clock stands still
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("output", 30, batch=3)
    assert await sweep(sweeper) == {"output": 20}
    await only("jobs", 30, batch=3)
    assert await sweep(sweeper) == {"jobs": 10}


async def test_what_somebody_holds_is_left_and_goes_the_next_time(sql, clock, hire, past, rows, only, connect):
    held, held_head, held_run, free = await past(4)
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    other = await connect()
    holding = other.transaction()
    await holding.start()
    await other.execute("select from leasehold.jobs where id = $1 for update", held)
    await other.execute("select from leasehold.heads where job_id = $1 for update", held_head)
    await other.execute("select from leasehold.runs where job_id = $1 for share", held_run)
    before = await rows(held, held_head, held_run)
    async with asyncio.timeout(5):
        assert await sweep(sweeper) == {"jobs": 1}
    assert await rows(held, held_head, held_run, free) == {**before, free: NOTHING}
    await holding.rollback()
    assert await sweep(sweeper) == {"jobs": 3}


async def test_one_daemon_sweeps_at_a_time(sql, clock, hire, past, only, connect):
    await past()
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    other = await connect()
    await other.execute(f"set leasehold.now = '{clock.now.isoformat()}'")
    async with sql.transaction():
        await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'jobs')", *sweeper.me)
        assert await sweep(sweeper, other) == {}
    assert await sweep(sweeper, other) == {"jobs": 1}


async def test_a_job_that_is_retried_while_it_is_swept_survives(
    sql, clock, hire, worker, job, only, connect, look, sane
):
    failed = await job()
    await worker.fail(await worker.claim_one())
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    other = await connect()
    await other.execute(f"set leasehold.now = '{clock.now.isoformat()}'")
    async with other.transaction():
        await other.execute("select leasehold.retry($1)", failed)
        assert await sweep(sweeper) == {}
    assert await sweep(sweeper) == {}
    assert (await look(failed))["status"] == "queued"
    await sane()


async def test_a_retry_that_comes_too_late_is_refused_cleanly(
    sql, clock, hire, worker, job, only, connect, rows, eventually
):
    failed = await job()
    await worker.fail(await worker.claim_one())
    await clock.forward(days=40)
    sweeper = await hire(instance="beta")
    await only("jobs", 30)
    other = await connect()
    async with sql.transaction():
        assert await sweep(sweeper) == {"jobs": 1}
        late = asyncio.create_task(other.execute("select leasehold.retry($1)", failed))
        await eventually(
            sql, "select count(*) from pg_locks where not granted and pid = $1", other.get_server_pid(), expected=1
        )
    with pytest.raises(asyncpg.PostgresError) as error:
        await late
    assert error.value.sqlstate == "LH023"
    assert await rows(failed) == {failed: NOTHING}


async def test_lives_long_over_go_unless_a_run_may_name_them(sql, clock, hire, past, only):
    idle = await hire(instance="idle")
    await idle.deregister()
    await clock.forward(days=2)
    busy = await hire(instance="busy")
    [job] = await past_of(sql, busy)
    await busy.deregister()
    await clock.forward(days=60)
    sweeper = await hire(instance="beta")
    await only("workers", 30)
    await sweep(sweeper)
    left = {row["id"] for row in await sql.fetch("select id from leasehold.workers")}
    assert idle.id not in left and {busy.id, sweeper.id} <= left
    await sql.execute("select leasehold.delete_job($1)", job)
    await sweep(sweeper)
    assert busy.id not in {row["id"] for row in await sql.fetch("select id from leasehold.workers")}


async def past_of(sql, worker):
    job = await sql.fetchval("insert into leasehold.jobs (agent, prompt) values ('fixer', 'x') returning id")
    await worker.finish(await worker.claim_one())
    return [job]


async def test_asks_that_came_to_nothing_go_by_their_own_rule(sql, clock, hire, worker, only):
    await sql.execute("update leasehold.agents set wake_on_demand = false")
    skipped = await sql.fetchrow("select * from leasehold.wake('fixer')")
    assert (skipped["disposition"], skipped["job_id"]) == ("skipped", None)
    await sql.execute(
        "insert into leasehold.schedules (name, agent, prompt, every) values ('s', 'fixer', 'x', '1 hour')"
    )
    await sql.execute("update leasehold.schedules set last_wakeup = $1", skipped["wakeup_id"])
    await sql.execute("update leasehold.agents set wake_on_demand = true")
    led = await sql.fetchrow("select * from leasehold.wake('fixer')")
    await clock.forward(days=40)
    await only("wakeups", 30)
    assert await sweep(await hire(instance="beta")) == {"wakeups": 1}
    assert await sql.fetchval("select array_agg(id) from leasehold.wakeups") == [led["wakeup_id"]]
    assert await sql.fetchval("select last_wakeup from leasehold.schedules") is None


async def test_a_rule_that_keeps_longer_than_there_is_time_keeps_and_stops_no_other(sql, hire, past, clock, rows, kept):
    [job] = await past()
    await clock.forward(days=400)
    sweeper = await hire(instance="beta")
    await sql.execute("update leasehold.retention set keep = '300000 years'")
    await kept("output", 30)
    assert await sweep(sweeper) == {"output": 2}
    assert (await rows(job))[job][0] == 1
    await sweeper.sql.fetch("select leasehold.find_orphans($1, $2, $3, $4)", *sweeper.me, [99], [None])


@pytest.mark.rule("GW26", "G16")
async def test_a_thread_at_rest_without_jobs_goes_with_its_marks_and_the_others_stay(
    sql, hire, worker, job, clock, kept
):
    for thread in ("gone", "kept", "young"):
        born = await job(thread=thread)
        await worker.finish(await worker.claim_job(born))
        await sql.execute("select leasehold.mark_thread_read($1, 'ann', 1)", thread)
    await kept("jobs")
    await sql.execute("select leasehold.delete_job(1)")
    await kept("threads", 365, batch=1)
    await clock.forward(days=300)
    await sql.execute("select leasehold.set_thread('young', title => 'new')")
    await clock.forward(days=70)
    sweeper = await hire(instance="beta")
    for _ in range(3):
        await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'sessions')", *sweeper.me)
    names = "select string_agg(thread, ' ' order by thread) from leasehold."
    assert await sql.fetchval(f"{names}threads") == "kept young" == await sql.fetchval(f"{names}read_cursors")
    await clock.forward(days=2)
    sweeper = await hire(instance="gamma")
    await sql.execute("select leasehold.delete_job(2)")
    await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'sessions')", *sweeper.me)
    assert await sql.fetchval(f"{names}threads") == "young"
    await job(thread="gone")
    assert await sql.fetchval("select status from leasehold.threads where thread = 'gone'") == "queued"
