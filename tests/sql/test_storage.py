"""What sessions keep on a host: evicted by hand or by time, never under a run that lives; whoever needs it afterwards fails at once."""

from datetime import timedelta

import pytest
from sql.test_usage import say

LEASE = timedelta(days=400)
ROW = "select kind, path, host_id, bytes, expires_at, backend_session_id from leasehold.sessions where key = $1"


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=LEASE)


async def store(sql, worker, run, path="sessions/talk", size=10, keep=None):
    await sql.execute(
        "select leasehold.report_storage($1, $2, $3, $4, $5, $6, $7)",
        *worker.me, run["run_id"], run["run_token"], path, size, keep,
    )  # fmt: skip


@pytest.fixture
def talk(sql, worker, job):
    """A job with a session and a directory that has ended, or the run of one that lives."""

    async def one(key="talk", *, live=False, path=None, **columns):
        await job(session_key=key, **columns)
        run = await worker.claim_one()
        await say(sql, run, {"id": f"s-{key}"}, kind="session")
        await store(sql, worker, run, path or f"sessions/{key}", keep=timedelta(days=7))
        if not live:
            await worker.finish(run)
        return run

    return one


async def evict(sql, key="talk", agent="fixer"):
    return await sql.fetchval("select leasehold.evict_session($1, $2)", agent, key)


async def take(worker):
    return [
        row["path"] for row in await worker.sql.fetch("select * from leasehold.take_removals($1, $2, 100)", *worker.me)
    ]


async def wanted(sql):
    return [row[0] for row in await sql.fetch("select path from leasehold.removals where done_at is null order by id")]


@pytest.mark.rule("G42", "G44", "G45", "G47")
async def test_storage_is_none_then_a_directory_then_evicted(sql, worker, job, talk, clock):
    await job(session_key="talk")
    run = await worker.claim_one()
    await say(sql, run, {"id": "s-1"}, kind="session")
    assert (await sql.fetchrow(ROW, "talk"))["kind"] == "none"
    await worker.finish(run)
    await talk()
    row = await sql.fetchrow(ROW, "talk")
    assert tuple(row)[:4] == ("directory", "sessions/talk", "host", 10)
    assert row["expires_at"] == clock.now + timedelta(days=7)
    assert await evict(sql) == "evicted" == await evict(sql)
    assert tuple(await sql.fetchrow(ROW, "talk")) == ("evicted", "sessions/talk", "host", 10, None, None)
    assert await wanted(sql) == ["sessions/talk"] == await take(worker)


@pytest.mark.rule("GW19", "G49")
async def test_nothing_is_evicted_under_a_run_that_lives(sql, worker, talk, refused):
    run = await talk(live=True)
    async with refused("LH086", says="lives"):
        await evict(sql)
    async with refused("LH086", says="lives"):
        await sql.execute("select leasehold.forget_session('fixer', 'talk')")
    await worker.finish(run)
    async with refused("LH086", says="has a directory"):
        await sql.execute("select leasehold.forget_session('fixer', 'talk')")
    await evict(sql)


@pytest.mark.rule("GW19", "GW20")
async def test_a_run_that_was_being_claimed_while_it_was_evicted_keeps_its_directory_until_it_ends(
    sql, worker, job, talk, connect, clock
):
    await talk()
    await job(session_key="talk")
    other = await connect()
    await other.execute("select set_config('leasehold.now', $1, false)", clock.now.isoformat())
    claiming = other.transaction()
    await claiming.start()
    [run] = await other.fetch("select * from leasehold.claim($1, $2, 1)", *worker.me)
    await evict(sql)
    await claiming.commit()
    assert await take(worker) == []
    await say(sql, run, {"id": "s-new"}, kind="session")
    assert (await sql.fetchrow(ROW, "talk"))["kind"] == "evicted"
    await worker.finish(run)
    await clock.forward(minutes=2)
    assert await take(worker) == ["sessions/talk"]


@pytest.mark.rule("G49")
async def test_a_run_that_needs_an_evicted_session_is_told_and_others_are_not(sql, worker, job, talk, look):
    await talk()
    await talk("other")
    await evict(sql)
    first, second = await job(session_key="talk"), await job(session_key="other")
    runs = {run["job_id"]: run for run in await worker.claim(2)}
    bodies = {body["job_id"]: body for body in await worker.read(list(runs.values()))}
    assert [bodies[born]["session_evicted"] for born in (first, second)] == [True, False]
    assert [bodies[born]["session"] for born in (first, second)] == [None, "s-other"]
    answer = await worker.finish(runs[first], "failed", "session_evicted")
    assert (answer["job_status"], (await look(first))["attempts"]) == ("failed", 0)
    assert await sql.fetchval("select leasehold.forget_session('fixer', 'talk')") == 1
    assert await sql.fetchval("select leasehold.retry($1)", first) == "queued"
    [body] = await worker.read([await worker.claim_job(first)])
    assert (body["session_evicted"], body["session"]) == (False, None)


@pytest.mark.rule("GW18")
async def test_a_report_revives_nothing_and_takes_nobody_elses_directory(sql, worker, job, talk, refused, hire):
    await talk()
    run = await talk("other", live=True)
    for path in ("sessions/talk", "sessions/third"):
        async with refused("LH086"):
            await store(sql, worker, run, path)
    for path in ("sessions", "sessions/a/b", "sessions/..", "runs/1", "/etc", "", None):
        async with refused("LH016"):
            await store(sql, worker, run, path)
    for size, keep in ((-1, None), (1, timedelta(0))):
        async with refused("LH016"):
            await store(sql, worker, run, "sessions/other", size, keep)
    await store(sql, worker, run, "sessions/other", None)
    assert (await sql.fetchrow(ROW, "other"))["bytes"] == 10
    await worker.finish(run)
    await evict(sql, "other")
    await job(session_key="other")
    late = await worker.claim_one()
    async with refused("LH086"):
        await store(sql, worker, late, "sessions/other")


async def test_a_directory_that_is_being_removed_is_nobodys_new_one(sql, worker, job, talk, refused):
    await talk()
    await evict(sql)
    assert await sql.fetchval("select leasehold.forget_session('fixer')") == 1
    await job(session_key="talk")
    run = await worker.claim_one()
    await say(sql, run, {"id": "s-2"}, kind="session")
    async with refused("LH086"):
        await store(sql, worker, run)


@pytest.mark.rule("G46", "G48", "GW19", "AW33")
async def test_what_has_had_its_time_goes_oldest_first_bounded_and_never_what_lives(sql, worker, talk, clock):
    await talk("one")
    await clock.forward(hours=1)
    live = await talk("two", live=True)
    await talk("three")
    await sql.execute("update leasehold.retention set keep = null, batch = 2")
    await clock.forward(days=8)

    async def sweep():
        return await sql.fetchrow("select * from leasehold.sweep_retention($1, $2, 'removals')", *worker.me)

    assert tuple(await sweep()) == ("sessions", 2, True)
    assert await wanted(sql) == ["sessions/one"]
    await sweep()
    assert await wanted(sql) == ["sessions/one", "sessions/three"]
    await worker.finish(live)
    await clock.forward(minutes=6)
    assert tuple(await sweep()) == ("sessions", 1, False)
    assert len(await wanted(sql)) == 3


async def test_the_directory_of_a_jobs_own_session_goes_with_the_job(sql, worker, job):
    born = await job()
    run = await worker.claim_one()
    await say(sql, run, {"id": "s-1"}, kind="session")
    await store(sql, worker, run, f"sessions/job-{born}")
    await worker.finish(run)
    await sql.execute("select leasehold.delete_job($1)", born)
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    assert await take(worker) == [f"sessions/job-{born}"]


@pytest.mark.rule("P71")
async def test_sessions_of_an_agent_are_forgotten_all_or_one_and_nobody_elses(sql, worker, job, login, refused):
    for key in ("a", "b", "c"):
        await job(session_key=key)
        run = await worker.claim_one()
        await say(sql, run, {"id": key}, kind="session")
        if key != "c":
            await worker.finish(run)
    assert await sql.fetchval("select leasehold.forget_session('fixer', 'a')") == 1
    assert await sql.fetchval("select leasehold.forget_session('fixer')") == 1
    assert await sql.fetchval("select string_agg(key, '') from leasehold.sessions") == "c"
    stranger = await login("leasehold_producer", "acme")
    async with refused("LH085"):
        await stranger.execute("select leasehold.evict_session('fixer', 'c')")
    async with refused("LH030"):
        await stranger.execute("select leasehold.evict_session('fixer', 'c', 'default')")


@pytest.mark.rule("GW26")
async def test_a_session_nobody_has_used_for_a_year_is_forgotten_and_its_counters_go_with_the_last_run(
    sql, worker, job, clock
):
    born = await job(session_key="talk")
    run = await worker.claim_one()
    await say(sql, run, {"id": "s-1"}, kind="session")
    await say(sql, run, {"counter": "session", "input_tokens": 5}, first=2)
    await worker.finish(run)
    await sql.execute("select leasehold.delete_job($1)", born)
    assert await sql.fetchval("select count(*) from leasehold.usage_counters") == 1
    await clock.forward(days=366)
    await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'removals')", *worker.me)
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    assert await sql.fetchval("select count(*) from leasehold.usage_counters") == 0


@pytest.mark.rule("X23")
async def test_an_older_run_takes_back_only_what_it_said_itself(sql, worker, job):
    for _ in range(2):
        await job(session_key="talk", conflict_policy="allow")
    old, new = await worker.claim(2)
    await say(sql, old, {"id": "s-1"}, kind="session")
    await say(sql, new, {"id": "s-2"}, kind="session")
    await say(sql, old, {"id": None}, kind="session", first=2)
    assert await sql.fetchval("select backend_session_id from leasehold.sessions") == "s-2"
    await say(sql, new, {"id": None}, kind="session", first=2)
    assert await sql.fetchval("select backend_session_id from leasehold.sessions") is None
