"""Deleting by hand: only what has ended, only one's own, and everything of it."""

import asyncio

import pytest

COUNT = "select count(*) from leasehold.jobs"


@pytest.fixture
async def ended(sql, worker, job):
    async def make(**columns):
        made = await job(**columns)
        await sql.execute("select leasehold.cancel($1)", made)
        return made

    return make


async def delete(sql, job):
    return await sql.fetchval("select leasehold.delete_job($1)", job)


@pytest.mark.rule("S105", "S107", "S126", "OW11")
@pytest.mark.parametrize("outcome", ["succeeded", "failed", "timed_out", "blocked", "cancelled"])
async def test_whatever_has_ended_can_go(sql, worker, job, outcome, sane):
    made = await job()
    reason = {"failed": "exit_code", "timed_out": "total", "blocked": "question", "cancelled": "cancelled"}.get(outcome)
    run = await worker.claim_one()
    if outcome == "cancelled":
        await sql.execute("select leasehold.cancel($1)", made)
    await worker.finish(run, outcome, reason)
    assert await delete(sql, made) == "deleted"
    for table in ("heads", "events", "runs", "output"):
        assert await sql.fetchval(f"select count(*) from leasehold.{table}") == 0, table
    await sane()


@pytest.mark.rule("S105", "S106", "S126", "SW26")
async def test_what_has_not_ended_is_refused(sql, worker, job, refused):
    running = await job(priority=9)
    await worker.claim_one()
    queued, holder = await job(), await job(concurrency_key="k")
    deferred = await job(concurrency_key="k")
    for live in (running, queued, holder, deferred):
        async with refused("LH095", "cannot be deleted"):
            await delete(sql, live)


async def test_one_that_is_not_there_and_one_of_others_are_the_same(sql, ended, login, refused):
    other = await ended(tenant="acme")
    producer = await login("leasehold_producer", "blue")
    for job in (other, 4711):
        async with refused("LH023", f"there is no job {job}"):
            await delete(producer, job)


async def test_a_producer_deletes_its_own(sql, fixer, worker, login):
    producer = await login("leasehold_producer", "blue")
    job = await producer.fetchval("insert into leasehold.jobs (agent, prompt) values ('fixer', 'x') returning id")
    await producer.execute("select leasehold.cancel($1)", job)
    assert await delete(producer, job) == "deleted"
    assert await sql.fetchval(COUNT) == 0


@pytest.mark.rule("S108", "S109")
async def test_old_ones_go_oldest_first_and_only_so_many(sql, clock, ended):
    jobs = []
    for _ in range(4):
        jobs.append(await ended())
        await clock.forward(days=10)
    assert await sql.fetchval("select leasehold.count_old_jobs(15)") == 3
    assert await sql.fetchval("select leasehold.delete_old_jobs(15, 2)") == 2
    assert [row["id"] for row in await sql.fetch("select id from leasehold.jobs order by id")] == jobs[2:]
    assert await sql.fetchval("select leasehold.delete_old_jobs(15)") == 1


@pytest.mark.rule("S108")
@pytest.mark.parametrize("days", [None, 0, -3])
async def test_without_a_number_of_days_all_that_have_ended_are_old(sql, ended, job, days):
    for _ in range(3):
        await ended()
    await job()
    assert await sql.fetchval("select leasehold.count_old_jobs($1)", days) == 3
    assert await sql.fetchval("select leasehold.delete_old_jobs($1)", days) == 3
    assert await sql.fetchval(COUNT) == 1


@pytest.mark.rule("S109")
@pytest.mark.parametrize(("asked", "taken"), [(None, 50), (0, 1), (-5, 1), (7, 7), (1000, 100)])
async def test_the_limit_is_clamped(sql, ended, asked, taken):
    for _ in range(101):
        await ended()
    assert await sql.fetchval("select leasehold.delete_old_jobs(null, $1)", asked) == taken


async def test_only_those_of_ones_own_tenants(sql, ended, login):
    await ended(tenant="acme")
    await ended(tenant="blue")
    producer = await login("leasehold_producer", "blue")
    assert await producer.fetchval("select leasehold.count_old_jobs()") == 1
    assert await producer.fetchval("select leasehold.delete_old_jobs()") == 1
    assert await sql.fetchval("select tenant from leasehold.jobs") == "acme"


async def test_what_somebody_holds_is_left_and_nobody_waits(sql, ended, connect):
    held = await ended()
    await ended()
    other = await connect()
    async with other.transaction():
        await other.execute("select from leasehold.jobs where id = $1 for update", held)
        async with asyncio.timeout(5):
            assert await sql.fetchval("select leasehold.delete_old_jobs()") == 1
    assert await sql.fetchval("select leasehold.delete_old_jobs()") == 1


NAMES = r"(^|_)(job|run|wakeup)(_id)?$"
TABLES = """
select c.relname as relation, a.attname as named_in
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid = 'bigint'::regtype
 where c.relnamespace = 'leasehold'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and a.attname ~ $1
"""
PASSING = {("thread_moves", "job")}  # notes that live until the commit of their own transaction
INDEXED = """
select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[$3]
                where i.indrelid = ('leasehold.' || $1)::regclass and a.attname = $2)
"""


@pytest.mark.rule("S107", "SW27")
async def test_every_table_that_names_a_job_or_a_run_is_in_the_cascade_and_has_an_index_for_it(sql):
    """To be added to: hangs_on_jobs() in functions/deletion.sql, one line for each new table."""
    named = {(row["relation"], row["named_in"]) for row in await sql.fetch(TABLES, NAMES)} - PASSING
    lines = await sql.fetch("select * from leasehold.hangs_on_jobs()")
    whole = {row["relation"] for row in lines if row["then_"] == "delete"}
    cleared = {(row["relation"], row["named_in"]) for row in lines if row["then_"] == "clear"}
    forgotten = {(table, column) for table, column in named if table not in whole and (table, column) not in cleared}
    assert not forgotten, f"add a line to hangs_on_jobs() for {sorted(forgotten)}"
    assert {row["then_"] for row in lines} <= {"delete", "clear"} and {row["names"] for row in lines} <= {
        "job",
        "run",
        "wakeup",
    }
    for row in lines:
        if await sql.fetchval("select to_regclass('leasehold.' || $1) is not null", row["relation"]):
            places = [await sql.fetchval(INDEXED, row["relation"], row["named_in"], place) for place in (0, 1)]
            assert places[0] or (places[1] and row["only_"]), f"{row} scans its table"  # or behind what `only_` fixes


async def test_a_new_table_that_is_forgotten_is_found(sql):
    await sql.execute("create table leasehold.notes (id bigint, job_id bigint, last_run bigint)")
    named = {(row["relation"], row["named_in"]) for row in await sql.fetch(TABLES, NAMES)}
    assert {("notes", "job_id"), ("notes", "last_run")} <= named


async def test_no_foreign_key_stands_in_the_way(sql):
    pointing = await sql.fetch("""select conrelid::regclass::text from pg_constraint
        where contype = 'f' and confrelid in ('leasehold.jobs'::regclass, 'leasehold.runs'::regclass) and confdeltype = 'a'""")
    assert not pointing, "hangs_on_jobs() deletes what names a job; a foreign key must not refuse it"


@pytest.mark.rule("SW27")
async def test_the_asks_that_led_to_it_go_with_it_and_its_schedule_forgets_it(sql, fixer, worker):
    await sql.execute(
        "insert into leasehold.schedules (name, agent, prompt, every) values ('s', 'fixer', 'x', '1 hour')"
    )
    asked = await sql.fetchrow("select * from leasehold.wake('fixer', key => 'k', reason => 'comment')")
    await sql.execute(
        "update leasehold.schedules set last_job = $1, last_wakeup = $2", asked["job_id"], asked["wakeup_id"]
    )
    await sql.execute("select leasehold.cancel($1)", asked["job_id"])
    assert await delete(sql, asked["job_id"]) == "deleted"
    assert await sql.fetchval("select count(*) from leasehold.wakeups") == 0
    row = await sql.fetchrow("select last_job, last_wakeup, version from leasehold.schedules")
    assert tuple(row) == (None, None, 1)


async def test_what_its_runs_used_goes_with_it_and_a_conversation_that_others_share_stays(sql, worker, job):
    """A session of its own goes, too; a shared one forgets the run and goes on counting."""
    own, shared = await job(), await job(session_key="talk")
    runs = {run["job_id"]: run for run in await worker.claim(2)}
    for made, key in ((own, f"job:{own}"), (shared, "talk")):
        run = runs[made]["run_id"]
        await worker.finish(runs[made])
        await sql.execute(
            """insert into leasehold.sessions (tenant, agent, adapter, key, conversation, last_run, updated_at)
               values ('default', 'fixer', 'command', $1, $2, $2, leasehold.clock())""", key, run)  # fmt: skip
        for scope in ("run", "session"):
            await sql.execute(
                """insert into leasehold.usage_counters (scope, run_id, name, provider, model, tenant, updated_at)
                   values ($1, $2, '', 'p', 'm', 'default', leasehold.clock())""", scope, run)  # fmt: skip
        await sql.execute(
            """insert into leasehold.usage (run_id, seq, job_id, tenant, agent, account, session, provider, model,
                 input_tokens, output_tokens, cached_tokens, at)
               values ($1, 1, $2, 'default', 'fixer', 'a', $3, 'p', 'm', 1, 1, 1, leasehold.clock())""", run, made, key)  # fmt: skip
    for made in (own, shared):
        assert await delete(sql, made) == "deleted"
    assert await sql.fetchval("select count(*) from leasehold.usage") == 0
    assert [tuple(row) for row in await sql.fetch("select key, last_run from leasehold.sessions")] == [("talk", None)]
    counters = await sql.fetch("select scope, run_id from leasehold.usage_counters")
    assert [tuple(row) for row in counters] == [("session", runs[shared]["run_id"])]


async def test_a_thread_forgets_the_job_that_is_gone_and_only_that(sql, ended):
    one, two = await ended(thread="t"), await ended(thread="u")
    assert await delete(sql, one) == "deleted"
    rows = await sql.fetch("select thread, last_job from leasehold.threads order by thread")
    assert [tuple(row) for row in rows] == [("t", None), ("u", two)]
