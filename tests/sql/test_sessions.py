"""Retries go on with the session of the last attempt, unless it is poisoned; then there is one fresh start, if no tool had run."""

import asyncio
from datetime import timedelta

import pytest
from sql.test_usage import say

LEASE = timedelta(days=30)


async def read(worker, run):
    [body] = await worker.read([run])
    return body["session"]


@pytest.fixture
def attempt(sql, worker, clock):
    """One attempt: what it was given to go on with; then it says its session and ends."""

    async def one(reason="exit_code", *, session=None, tool=False, outcome="failed"):
        await clock.forward(hours=1)
        await worker.renew(lease=LEASE)
        run = await worker.claim_one()
        given = await read(worker, run)
        if session is not None:
            await say(sql, run, {"id": session}, kind="session")
        if tool:
            await say(sql, run, {"name": "grep"}, kind="tool_call", first=2)
        answer = await worker.finish(run, outcome, reason)
        return given, answer["job_status"]

    return one


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=LEASE)


async def reason_of(sql):
    return await sql.fetchval("select reason from leasehold.jobs")


@pytest.mark.rule("P53", "P66", "P68", "A26", "A62", "S82")
async def test_the_next_attempt_goes_on_with_the_session_of_the_last(sql, job, attempt):
    await job(max_attempts=9)
    assert await attempt(session="s-1") == (None, "queued")
    assert await attempt("signal", session="s-2") == ("s-1", "queued")
    assert (await attempt("total", outcome="timed_out"))[0] == "s-2"
    row = await sql.fetchrow("select * from leasehold.runs where attempt = 2")
    assert (row["session_before"], row["session_after"], row["poisoned"]) == ("s-1", "s-2", None)


async def test_an_interruption_goes_on_too(job, attempt):
    await job()
    await attempt("stopped", session="s-1", outcome="interrupted")
    assert (await attempt("worker_lost", outcome="lost"))[0] == "s-1"
    assert (await attempt("ok", outcome="succeeded"))[0] == "s-1"


@pytest.mark.rule("P53", "PW37")
async def test_jobs_with_one_session_key_share_a_conversation_and_others_do_not(job, attempt):
    for key in ("talk", "talk", "other", None):
        await job(session_key=key)
    given = [(await attempt("ok", session=f"s-{n}", outcome="succeeded"))[0] for n in range(4)]
    assert given == [None, "s-0", None, None]


@pytest.mark.rule("AW10")
async def test_two_jobs_never_go_on_with_one_conversation_at_once(sql, job, worker):
    first, second = await job(session_key="talk"), await job(session_key="talk")
    other = await job(session_key="talk", tenant="acme")
    runs = await worker.claim(8)
    assert {run["job_id"] for run in runs} == {first, other}
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", second) == "deferred"
    await worker.finish(next(run for run in runs if run["job_id"] == first))
    assert (await worker.claim_one())["job_id"] == second


async def test_whoever_asks_twice_in_one_conversation_is_heard_twice(sql, job, worker):
    asked = [
        await sql.fetchval(
            "select job_id from leasehold.enqueue('fixer', $1, session_key => 'talk', conflict_policy => 'coalesce')",
            words,
        )
        for words in ("this", "that")
    ]
    assert len(set(asked)) == 2
    run = await worker.claim_one()
    assert run["job_id"] == asked[0]
    await worker.finish(run)
    assert (await worker.claim_one())["job_id"] == asked[1]


async def test_a_key_of_its_own_or_the_policy_allow_leaves_that_to_whoever_asks(job, worker):
    for columns in ({"concurrency_key": "a"}, {"concurrency_key": "b"}, {"conflict_policy": "allow"}):
        await job(session_key="talk", **columns)
    assert len(await worker.claim(8)) == 3


@pytest.mark.rule("P13", "P69", "A59", "A60", "GW17")
async def test_a_session_is_of_one_tenant_agent_and_adapter(sql, job, attempt):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    await job(session_key="talk")
    await attempt("ok", session="s", outcome="succeeded")
    await job(session_key="talk", agent="other")
    assert (await attempt("ok", outcome="succeeded"))[0] is None
    await job(session_key="talk", tenant="acme")
    assert (await attempt("ok", session="t", outcome="succeeded"))[0] is None
    assert await sql.fetchval("select backend_session_id from leasehold.sessions where tenant = 'default'") == "s"
    await sql.execute("update leasehold.sessions set adapter = 'another'")
    await job(session_key="talk")
    assert (await attempt("ok", outcome="succeeded"))[0] is None


@pytest.mark.rule("A17", "A58", "S83", "P13")
async def test_a_session_is_made_by_its_first_use_and_says_whose_it_is(sql, job, worker, clock):
    await job(session_key="talk", tenant="acme")
    run = await worker.claim_one()
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    await say(sql, run, {"id": "s-1"}, kind="session")
    row = await sql.fetchrow("select * from leasehold.sessions")
    assert (row["tenant"], row["agent"], row["adapter"], row["key"]) == ("acme", "fixer", "command", "talk")
    assert (row["backend_session_id"], row["last_run"], row["updated_at"]) == ("s-1", run["run_id"], clock.now)


@pytest.mark.rule("PW38")
async def test_first_uses_at_once_do_not_collide(sql, job, worker, connect):
    for _ in range(6):
        await job(session_key="talk", conflict_policy="allow")
    runs = await worker.claim(6)
    lines = [await connect() for _ in runs]
    await asyncio.gather(
        *(say(line, run, {"id": f"s-{run['run_id']}"}, kind="session") for line, run in zip(lines, runs, strict=True))
    )
    row = await sql.fetchrow("select * from leasehold.sessions")
    assert row["backend_session_id"] == f"s-{row['last_run']}"


async def test_a_session_that_is_rejected_is_followed_by_one_fresh_start(sql, job, attempt):
    await job(max_attempts=9)
    await attempt(session="s-1")
    assert await attempt("session_rejected") == ("s-1", "queued")
    assert await attempt("signal", session="s-2") == (None, "queued")
    assert await attempt("session_rejected") == ("s-2", "failed")
    assert await reason_of(sql) == "session_poisoned"


async def test_the_same_reason_twice_poisons_the_session_but_never_a_fresh_one(sql, job, attempt):
    await job(max_attempts=9)
    assert await attempt(session="s-1") == (None, "queued")
    assert await attempt() == ("s-1", "queued")
    assert await sql.fetchval("select poisoned from leasehold.runs where attempt = 2") == "exit_code"
    assert await attempt() == (None, "queued")
    assert await attempt() == (None, "queued")


async def test_there_is_no_fresh_start_after_a_tool_has_run(sql, job, attempt):
    await job(max_attempts=9)
    await attempt(session="s-1")
    assert await attempt(tool=True) == ("s-1", "failed")
    assert await reason_of(sql) == "session_poisoned"
    await sql.execute("select leasehold.retry(id) from leasehold.jobs")
    assert (await attempt("ok", outcome="succeeded"))[0] is None


@pytest.mark.rule("SW13")
async def test_other_reasons_and_interruptions_between_poison_nothing_by_themselves(job, attempt):
    await job(max_attempts=9)
    await attempt(session="s-1", tool=True)
    assert await attempt("signal", tool=True) == ("s-1", "queued")
    assert await attempt(tool=True) == ("s-1", "queued")
    assert await attempt("stopped", outcome="interrupted") == ("s-1", "queued")
    assert await attempt(tool=True) == ("s-1", "failed")


@pytest.mark.rule("P66", "P68")
async def test_an_agent_takes_its_session_back(job, attempt, sql, worker, clock):
    await job(max_attempts=9)
    await attempt(session="s-1")
    await clock.forward(hours=1)
    run = await worker.claim_one()
    await say(sql, run, {"id": None}, kind="session")
    await worker.finish(run, "failed", "signal")
    assert (await attempt())[0] is None


async def test_a_session_that_is_none_is_refused_loudly(sql, job, worker, refused):
    await job()
    run = await worker.claim_one()
    for at, said in enumerate(({}, {"id": 7}, {"id": " "}, {"id": "x" * 501}, {"id": "a\nb"}), 1):
        await say(sql, run, said, kind="session", first=at)
    rows = await sql.fetch("select level, message from leasehold.events where kind = 'session' order by seq")
    assert [row["level"] for row in rows] == ["warning"] * 5 and all("not counted" in row["message"] for row in rows)
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    async with refused("LH016"):
        await report(sql, worker, run, "")
    await report(sql, worker, run, "s-1")
    assert await sql.fetchval("select backend_session_id from leasehold.sessions") == "s-1"


async def report(sql, worker, run, session):
    await sql.execute(
        "select leasehold.report_session($1, $2, $3, $4, $5)", *worker.me, run["run_id"], run["run_token"], session
    )
