"""Which session a job goes on with when it names one, begins a new one, or somebody resets it under a run that lives."""

from datetime import timedelta

import pytest
from sql.test_usage import say


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=timedelta(days=30))


@pytest.fixture
def begin(sql, job, worker):
    """A job's run: what it was given to go on with; it says its session if there is one to say."""

    async def one(says=None, /, **columns):
        await job(**columns)
        run = dict(await worker.claim_one())
        run["given"] = await given(worker, run)
        if says is not None:
            await say(sql, run, {"id": says}, kind="session")
        return run

    return one


@pytest.fixture
def turn(begin, worker):
    """The same, and its end: what it was given."""

    async def one(says=None, /, **columns):
        run = await begin(says, **columns)
        await worker.finish(run)
        return run["given"]

    return one


async def given(worker, run):
    return (await worker.read([run]))[0]["session"]


async def kept(sql, key="talk"):
    return await sql.fetchval("select backend_session_id from leasehold.sessions where key = $1", key)


@pytest.mark.rule("P66", "A61", "X5")
async def test_a_session_that_a_job_names_wins_over_the_one_before_and_its_key_goes_with_it(sql, turn):
    await turn("s-1", session_key="talk")
    assert await turn("s-2", session="s-1") == "s-1"
    row = await sql.fetchrow("select session_key, session from leasehold.jobs order by id desc")
    assert tuple(row) == ("talk", "s-1")
    assert await turn(session_key="talk") == "s-2" == await kept(sql)


@pytest.mark.rule("P66")
async def test_what_is_named_is_what_the_first_attempt_gets_whatever_its_key_has_by_then(sql, job, worker, turn, begin):
    await turn("s-1", session_key="talk")
    await job(session="s-1", run_at=None, priority=0)
    await turn("s-2", session_key="talk", priority=9, conflict_policy="allow")
    run = await worker.claim_one()
    assert await given(worker, run) == "s-1"
    await worker.finish(run)
    assert await kept(sql) == "s-2", "it has said nothing"


@pytest.mark.rule("P66", "P68")
async def test_a_new_session_replaces_the_one_before_when_it_is_said_and_its_own_retry_goes_on_with_it(
    sql, turn, begin, worker, clock
):
    await turn("s-1", session_key="talk")
    run = await begin(session_key="talk", new_session=True, max_attempts=3)
    assert run["given"] is None and await kept(sql) == "s-1"
    await say(sql, run, {"id": "s-2"}, kind="session")
    assert await kept(sql) == "s-2"
    await worker.fail(run)
    await clock.forward(hours=1)
    again = await worker.claim_one()
    assert await given(worker, again) == "s-2"
    await worker.finish(again)
    assert await turn(session_key="talk") == "s-2"


async def test_a_new_session_that_was_never_said_begins_anew_with_the_next_attempt(sql, turn, begin, worker, clock):
    await turn("s-1", session_key="talk")
    run = await begin(session_key="talk", new_session=True)
    await worker.finish(run, "interrupted", "stopped")
    await clock.forward(minutes=1)
    again = await worker.claim_one()
    assert await given(worker, again) is None
    await say(sql, again, {"id": "s-2"}, kind="session")
    assert await kept(sql) == "s-2"


async def test_a_new_session_makes_good_an_evicted_one(sql, turn):
    await turn("s-1", session_key="talk")
    await sql.execute("select leasehold.evict_session('fixer', 'talk')")
    assert await turn("s-2", session_key="talk", new_session=True) is None
    assert await turn(session_key="talk") == "s-2"


@pytest.mark.rule("A59", "A60", "GW17", "AW34")
async def test_who_names_a_session_of_somebody_else_is_refused_as_if_there_were_none(
    sql, turn, job, login, refused, connect
):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    await turn("s-1", session_key="talk")
    await turn("s-9", session_key="talk", tenant="acme")
    stranger = await login("leasehold_producer", "acme")
    ask = "insert into leasehold.jobs (agent, prompt, session) values ($1, 'x', $2)"
    said = []
    for agent, session in (("fixer", "s-1"), ("fixer", "s-none"), ("other", "s-9")):
        async with refused("LH121") as seen:
            await stranger.execute(ask, agent, session)
        said.append(str(seen.error).replace(session, "S").replace(agent, "A"))
    assert len(set(said)) == 1
    assert await stranger.execute(ask, "fixer", "s-9") == "INSERT 0 1"
    async with refused("LH121"):
        await job(session="s-9")
    assert await sql.fetchval("select tenant from leasehold.sessions where backend_session_id = 's-1'") == "default"


async def test_an_administrator_may_name_one_that_was_made_elsewhere(turn, job, refused):
    assert await turn("made-by-hand", session="made-by-hand", session_key="talk") == "made-by-hand"
    assert await turn(session_key="talk") == "made-by-hand"
    async with refused("LH122"):
        await job(session="made-by-hand", session_key="other")
    async with refused("LH120"):
        await job(session="made-by-hand", new_session=True)
    async with refused("LH121"):
        await job(session="a\nb")


@pytest.mark.rule("X5")
async def test_which_session_is_asked_for_is_part_of_the_request(sql, turn, refused):
    await turn("s-1", session_key="talk")
    ask = "select * from leasehold.enqueue('fixer', 'x', idempotency_key => 'k', session => $1)"
    first = await sql.fetchrow(ask, "s-1")
    assert tuple(await sql.fetchrow(ask, "s-1")) == (first["job_id"], "existing")
    async with refused("LH031"):
        await sql.fetchrow(ask, None)


@pytest.mark.rule("P71", "PW39", "PW40", "X23")
async def test_a_reset_under_a_run_that_lives_is_not_undone_by_it_and_is_of_one_key(sql, turn, begin, worker):
    await turn("s-1", session_key="talk")
    await turn("s-2", session_key="other")
    run = await begin("s-1", session_key="talk")
    assert await sql.fetchval("select leasehold.reset_session('fixer', 'talk')") == 1
    await say(sql, run, {"id": "s-1"}, kind="session", first=2)
    await worker.finish(run, "failed", "exit_code", "it broke")
    row = await sql.fetchrow("select backend_session_id, last_error from leasehold.sessions where key = 'talk'")
    assert tuple(row) == (None, None)
    assert await turn("s-3", session_key="talk") is None
    assert await turn(session_key="talk") == "s-3"
    assert await turn(session_key="other") == "s-2"


@pytest.mark.rule("PW39")
async def test_a_reset_is_also_of_a_run_that_has_not_said_its_session_yet(sql, begin, turn, worker, refused):
    run = await begin(session_key="talk")
    assert await sql.fetchval("select leasehold.reset_session('fixer', 'talk')") == 1
    await say(sql, run, {"id": "s-old"}, kind="session")
    await worker.finish(run)
    assert await turn("s-new", session_key="talk") is None
    assert await kept(sql) == "s-new"
    async with refused("LH085"):
        await sql.fetchval("select leasehold.reset_session('fixer', 'nowhere')")


@pytest.mark.rule("P71")
async def test_all_sessions_of_an_agent_are_reset_at_once_and_nobody_elses(sql, turn, login, refused):
    for key in ("a", "b"):
        await turn(f"s-{key}", session_key=key)
    await turn("s-c", session_key="a", tenant="acme")
    stranger = await login("leasehold_producer", "acme")
    async with refused("LH030"):
        await stranger.fetchval("select leasehold.reset_session('fixer', null, 'default')")
    assert await sql.fetchval("select leasehold.reset_session('fixer')") == 2
    assert [await turn(session_key=key) for key in ("a", "b")] == [None, None]
    assert await turn(session_key="a", tenant="acme") == "s-c"


@pytest.mark.rule("P68", "AW8", "X23")
async def test_what_went_wrong_last_stands_in_the_row_and_an_older_runs_end_says_nothing(sql, begin, worker):
    error = "select last_error from leasehold.sessions"
    old = await begin("s-1", session_key="talk", conflict_policy="allow")
    new = await begin("s-2", session_key="talk", conflict_policy="allow")
    await worker.finish(old, "failed", "exit_code", "old trouble")
    assert await sql.fetchval(error) is None and await kept(sql) == "s-2"
    assert await state(sql) == "running"
    await worker.finish(new, "failed", "signal")
    assert await sql.fetchval(error) == "signal"
    last = await begin("s-2", session_key="talk")
    await worker.finish(last)
    assert await sql.fetchval(error) is None and await state(sql) == "idle"


async def state(sql, key="talk"):
    return await sql.fetchval("select state from leasehold.session_overview where key = $1", key)


@pytest.mark.rule("AW9", "A92", "AW40")
async def test_the_state_of_a_session_is_that_of_its_live_run_whatever_its_turns_do(sql, begin, worker):
    run = await begin("s-1", session_key="talk")
    await say(sql, run, {"turn": 1, "state": "ended"}, kind="turn", first=2)
    assert await state(sql) == "running"
    await worker.finish(run)
    assert await state(sql) == "idle"


@pytest.mark.rule("P67", "P72")
async def test_sessions_are_listed_the_newest_first_with_a_name_to_show(sql, turn, clock):
    for key in ("a", "b", "c"):
        await turn(f"{key}{'x' * 200}", session_key=key)
        await clock.forward(minutes=1)
    await turn(session_key="a")
    rows = await sql.fetch("select key, display, state from leasehold.session_overview")
    assert [row["key"] for row in rows] == ["c", "b", "a"], "a run that said no session has not touched it"
    assert {len(row["display"]) for row in rows} == {128} and {row["state"] for row in rows} == {"idle"}


async def test_a_reader_sees_the_sessions_of_its_tenant(sql, turn, login):
    await turn("s-1", session_key="talk")
    await turn("s-2", session_key="talk", tenant="acme")
    reader = await login("leasehold_reader", "acme")
    rows = await reader.fetch("select display, state from leasehold.session_overview")
    assert [tuple(row) for row in rows] == [("s-2", "idle")]
