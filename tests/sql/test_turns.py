"""Turns: what is said to an agent at work is numbered, given once, ended by its agent, and never silently absorbed."""

import asyncpg
import pytest
from sql.talks import answer, asked, hears, inputs, kinds, permission, said, steer, take, turn


@pytest.fixture
async def talker(sql, clock):
    return await hears(sql)


@pytest.fixture
async def worker(hire, talker):
    return await hire()


@pytest.fixture
async def begun(sql, worker, job):
    """A job at work and its run."""

    async def one(**columns):
        made = await job(**{"agent": "talker"} | columns)
        run = await worker.claim_job(made)
        await worker.start(run)
        return made, run

    return one


async def pending(worker, run):
    return [row["run_id"] for row in await worker.renew([run]) if row["what"] == "input"]


@pytest.mark.rule("A10", "A44", "A46", "A47", "A48", "A49", "A51", "A53", "A91", "AW24", "X28")
async def test_a_steer_is_a_row_at_once_then_given_then_ended_by_its_agent(sql, worker, begun, sane):
    job, run = await begun()
    assert await pending(worker, run) == []
    first = await steer(sql, job, "  also the docs\n")
    second = await steer(sql, job, "and the tests")
    assert await pending(worker, run) == [run["run_id"]]
    waiting = [("steer", first, "also the docs"), ("steer", second, "and the tests")]
    assert await inputs(worker, run) == waiting
    await take(worker, run, *waiting)
    assert await inputs(worker, run) == [] and await pending(worker, run) == []
    assert await inputs(worker, run, again=True) == waiting, "who builds the conversation anew needs them"
    await take(worker, run, *waiting)
    assert await said(sql, run, ("turn", {"turn": first, "state": "ended", "why": "done"})) == []
    await said(sql, run, ("turn", {"turn": first, "state": "refused", "why": "no"}))
    row = await turn(sql, first)
    assert (row["seq"], row["state"], row["outcome"], row["why"], row["run_id"]) == (
        1,
        "ended",
        "done",
        "done",
        run["run_id"],
    )
    assert (await turn(sql, second))["state"] == "acknowledged"
    assert await kinds(sql, job, "turn_") == ["turn_created"] * 2 + ["turn_acknowledged"] * 2 + ["turn_ended"]
    rows = await sql.fetch("select seq from leasehold.turns where job_id = $1 and seq > 0 order by seq limit 100", job)
    assert [row["seq"] for row in rows] == [1, 2]
    await sane()


@pytest.mark.rule("S96")
@pytest.mark.parametrize("text", [None, "", " \t\n"])
async def test_a_steer_without_words_is_refused(sql, begun, refused, text):
    job, _ = await begun()
    async with refused("LH100", "needs a text"):
        await steer(sql, job, text)


async def test_too_many_words_are_refused(sql, begun, refused):
    job, _ = await begun()
    async with refused("LH100", "262145 bytes"):
        await steer(sql, job, "x" * 262145)
    for _ in range(3):
        await steer(sql, job, "x" * 262144)
    async with refused("LH109", "wait for the agent"):
        await steer(sql, job, "x" * 262144)


@pytest.mark.rule("A41", "SW32")
async def test_what_is_said_to_a_job_that_ended_is_refused_with_its_outcome(sql, worker, begun, refused):
    job, run = await begun()
    await worker.fail(run)
    async with refused("LH101", f"job {job} has already ended: failed, exit_code") as seen:
        await steer(sql, job)
    assert f"session_key => 'job:{job}'" in seen.error.hint
    job, run = await begun()
    await sql.execute("select leasehold.cancel($1)", job)
    async with refused("LH101", "is being cancelled"):
        await steer(sql, job)


@pytest.mark.rule("A42", "A43", "AW12")
async def test_the_same_request_with_its_key_is_the_same_turn_even_when_the_job_has_ended(sql, worker, begun, refused):
    job, run = await begun()
    first = await steer(sql, job, "also the docs", "k")
    assert await steer(sql, job, " also the docs ", "k") == first
    async with refused("LH103", f"(turn {first})"):
        await steer(sql, job, "something else", "k")
    async with refused("LH103"):
        await steer(sql, job, "also the docs", "k", kind="prompt")
    other, _ = await begun()
    assert await steer(sql, other, "something else", "k") != first, "a key is of its job"
    await worker.finish(run)
    assert await steer(sql, job, "also the docs", "k") == first
    assert await sql.fetchval("select count(*) from leasehold.turns where job_id = $1", job) == 1


@pytest.mark.rule("X28")
@pytest.mark.parametrize("status", ["queued", "deferred"])
async def test_what_is_said_before_the_run_begins_is_given_to_it(sql, worker, job, status):
    if status == "deferred":
        await job(agent="talker", concurrency_key="k")
        holder = await worker.claim_one()
    made = await job(agent="talker", concurrency_key="k")
    said_ = await steer(sql, made)
    if status == "deferred":
        await worker.finish(holder)
    run = await worker.claim_one()
    assert await pending(worker, run) == [run["run_id"]]
    assert await inputs(worker, run) == [("steer", said_, "also the docs")]


@pytest.mark.rule("X28", "PW24")
@pytest.mark.parametrize(("outcome", "reason"), [("succeeded", None), ("failed", "exit_code"), ("timed_out", "total")])
async def test_what_was_not_heard_becomes_one_job_that_goes_on_with_the_conversation(
    sql, worker, begun, look, sane, outcome, reason
):
    job, run = await begun(queue="slow", thread="t", project="p", repository="site", priority=7)
    heard = await steer(sql, job, "heard")
    await take(worker, run, ("steer", heard))
    first, second = await steer(sql, job, "first"), await steer(sql, job, "second", kind="prompt")
    stop = await sql.fetchval("select leasehold.interrupt($1)", job)
    await worker.finish(run, outcome, reason)
    rows = [await turn(sql, one) for one in (heard, first, second, stop)]
    assert [(row["state"], row["outcome"]) for row in rows] == [
        ("ended", "run_ended"), ("ended", "follow_up"), ("ended", "follow_up"), ("ended", "run_ended"),
    ]  # fmt: skip
    follow = await look(rows[1]["follow_up_job"])
    assert rows[2]["follow_up_job"] == follow["id"]
    assert (follow["status"], follow["prompt"]) == ("queued", "first\n\nsecond")
    assert follow["session_key"] == f"job:{job}"
    names = ("tenant", "agent", "queue", "thread", "project", "repository", "priority")
    old = await look(job)
    assert [follow[name] for name in names] == [old[name] for name in names]
    last = await sql.fetchval("select kind from leasehold.events where job_id = $1 order by seq desc limit 1", job)
    assert last == outcome, "the last event says how it ended"
    assert await kinds(sql, follow["id"], "follow") == ["follow_up"]
    await sane()


@pytest.mark.rule("A50", "X28")
async def test_a_follow_up_shares_the_session_and_the_key_and_comes_after_what_waited_before(
    sql, worker, begun, job, look, sane
):
    made, run = await begun(concurrency_key="k", session_key="s")
    waiting = await job(agent="talker", concurrency_key="k")
    said_ = await steer(sql, made)
    await said(sql, run, ("session", {"id": "backend-1"}))
    await worker.finish(run)
    follow = await look((await turn(sql, said_))["follow_up_job"])
    assert (follow["status"], follow["concurrency_key"], follow["session_key"]) == ("deferred", "k", "s")
    await sane()
    await worker.finish(await worker.claim_job(waiting))
    run = await worker.claim_job(follow["id"])
    assert (await worker.read([run]))[0]["session"] == "backend-1"
    await sane()


async def test_a_follow_up_alone_takes_the_key_itself(sql, worker, begun, look, sane):
    made, run = await begun(concurrency_key="k")
    said_ = await steer(sql, made)
    await worker.finish(run)
    assert (await look((await turn(sql, said_))["follow_up_job"]))["status"] == "queued"
    await sane()


async def test_a_follow_up_of_a_job_that_began_a_session_goes_on_with_that_one(sql, worker, begun, look, sane):
    made, run = await begun(session_key="s", new_session=True)
    said_ = await steer(sql, made)
    await said(sql, run, ("session", {"id": "backend-2"}))
    await worker.finish(run)
    follow = await look((await turn(sql, said_))["follow_up_job"])
    assert (follow["session_key"], follow["session"], follow["new_session"]) == ("s", None, False)
    assert (await worker.read([await worker.claim_job(follow["id"])]))[0]["session"] == "backend-2"
    await sane()


async def test_a_follow_up_of_a_job_that_named_a_session_goes_on_with_what_that_has_become(sql, worker, begun, look):
    made, run = await begun(session_key="s")
    await said(sql, run, ("session", {"id": "backend-1"}))
    await worker.finish(run)
    made, run = await begun(session="backend-1")
    said_ = await steer(sql, made)
    await said(sql, run, ("session", {"id": "backend-2"}))
    await worker.finish(run)
    follow = (await turn(sql, said_))["follow_up_job"]
    assert follow and (await worker.read([await worker.claim_job(follow)]))[0]["session"] == "backend-2"


@pytest.mark.rule("AW23")
async def test_a_job_that_is_retried_waits_for_whoever_goes_on_with_its_conversation(sql, worker, begun, look, sane):
    made, run = await begun()
    said_ = await steer(sql, made)
    await said(sql, run, ("session", {"id": "backend-1"}))
    await worker.fail(run)
    follow = (await turn(sql, said_))["follow_up_job"]
    assert await sql.fetchval("select leasehold.retry($1)", made) == "deferred"
    await sane()
    [run] = await worker.claim()
    assert run["job_id"] == follow and await worker.claim() == []
    await worker.finish(run)
    [run] = await worker.claim()
    assert run["job_id"] == made and (await worker.read([run]))[0]["session"] == "backend-1"
    await worker.finish(run)
    await sane()


@pytest.mark.rule("AW10")
async def test_nobody_goes_on_with_the_conversation_of_a_job_that_is_not_over(sql, worker, fixer, begun, job, refused):
    made, run = await begun()
    await said(sql, run, ("session", {"id": "backend-1"}))
    async with refused("LH126", f"job {made} is not over") as seen:
        await job(agent="talker", session_key=f"job:{made}")
    assert f"leasehold.prompt({made}," in seen.error.hint
    async with refused("LH126"):
        await job(agent="talker", session="backend-1")
    await job(session_key=f"job:{made}")  # another agent's has the same name only
    await job(agent="talker", session_key=f"job:{made}", conflict_policy="allow")
    await worker.fail(run)
    await job(agent="talker", session_key=f"job:{made}")


async def test_two_retried_jobs_of_one_conversation_go_one_after_the_other(sql, worker, begun, job, look):
    first, run = await begun()
    await said(sql, run, ("session", {"id": "backend-1"}))
    await worker.fail(run)
    second = await job(agent="talker", session_key=f"job:{first}")
    await worker.fail(await worker.claim_job(second))
    assert await sql.fetchval("select leasehold.retry($1)", first) == "queued"
    assert await sql.fetchval("select leasehold.retry($1)", second) == "deferred"
    assert (await look(await job(agent="talker", session_key=f"job:{first}")))["status"] == "deferred"


async def test_a_job_with_a_key_of_its_own_is_not_retried_beside_who_goes_on_with_its_conversation(
    sql, worker, begun, job, refused
):
    first, run = await begun(concurrency_key="k")
    await worker.fail(run)
    second = await job(agent="talker", prompt="x", session_key=f"job:{first}", idempotency_key="once")
    async with refused("LH126", f"job {second} goes on"):
        await sql.execute("select leasehold.retry($1)", first)
    await worker.fail(await worker.claim_job(second))
    assert await sql.fetchval("select leasehold.retry($1)", first) == "queued"
    async with refused("LH126", f"job {first} goes on"):
        await sql.execute("select leasehold.retry($1)", second)
    again = "select disposition from leasehold.enqueue('talker', 'x', session_key => $1, idempotency_key => 'once')"
    assert await sql.fetchval(again, f"job:{first}") == "existing"


async def test_many_jobs_that_have_no_conversation_are_retried_at_once_without_a_lock_each(sql, fixer):
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 200)")
    await sql.execute("select leasehold.cancel(id) from leasehold.jobs")
    async with sql.transaction():
        await sql.execute("select leasehold.retry(id) from leasehold.jobs")
        assert await sql.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0


async def test_an_agent_that_cannot_be_steered_gets_a_job_and_the_row_says_so(sql, worker, job, look, hire, sane):
    await hears(sql, "plain", "command")
    made = await job(agent="plain")
    run = await worker.claim_one()
    said_ = await steer(sql, made)
    row = await turn(sql, said_)
    assert row["state"] == "pending" and 'agent "plain" cannot be steered' in row["why"]
    assert await pending(worker, run) == [] and await inputs(worker, run) == []
    await worker.finish(run)
    row = await turn(sql, said_)
    assert (row["state"], row["outcome"]) == ("ended", "follow_up")
    assert (await look(row["follow_up_job"]))["prompt"] == "also the docs"
    await sane()


@pytest.mark.rule("X28")
async def test_what_its_agent_could_not_take_becomes_a_job_or_the_next_attempts(sql, worker, begun, look):
    job, run = await begun(max_attempts=2)
    said_ = await steer(sql, job)
    await take(worker, run, ("steer", said_))
    await said(sql, run, ("turn", {"turn": said_, "state": "refused", "why": "too late"}))
    row = await turn(sql, said_)
    assert (row["state"], row["deliverable"]) == ("pending", False) and "too late" in row["why"]
    assert await inputs(worker, run) == [] and await pending(worker, run) == []
    await worker.fail(run)
    await sql.execute("update leasehold.jobs set run_at = leasehold.clock(), due = true where id = $1", job)
    run = await worker.claim_job(job)
    assert await inputs(worker, run) == [("steer", said_, "also the docs")]
    await said(sql, run, ("turn", {"turn": said_, "state": "refused", "why": "too late"}))
    await worker.finish(run)
    assert (await look((await turn(sql, said_))["follow_up_job"]))["prompt"] == "also the docs"


@pytest.mark.parametrize("way", ["succeeded", "failed"])
async def test_what_its_agent_refused_before_its_worker_said_that_it_has_it_is_not_heard(sql, worker, begun, sane, way):
    job, run = await begun()
    said_ = await steer(sql, job)
    await said(sql, run, ("turn", {"turn": said_, "state": "refused", "why": "too late"}))
    await take(worker, run, ("steer", said_))
    row = await turn(sql, said_)
    assert (row["state"], row["acknowledged_at"]) == ("pending", None)
    await worker.finish(run, way, {"failed": "exit_code"}.get(way))
    assert (await turn(sql, said_))["outcome"] == "follow_up"
    await sane()


async def test_an_interrupt_that_its_agent_refuses_is_over(sql, worker, begun):
    job, run = await begun()
    stop = await sql.fetchval("select leasehold.interrupt($1, 'wrong way')", job)
    assert await inputs(worker, run) == [("interrupt", stop, "wrong way")]
    await said(sql, run, ("turn", {"turn": stop, "state": "refused", "why": "nothing to interrupt"}))
    assert (await turn(sql, stop))["outcome"] == "refused"


@pytest.mark.rule("X28")
@pytest.mark.parametrize("way", ["failed", "interrupted", "lost"])
async def test_what_was_not_done_when_a_run_ended_is_said_to_the_next_one(sql, worker, begun, hire, clock, sane, way):
    await sql.execute("update leasehold.agents set retry_backoff = '0', retry_backoff_max = '0'")
    job, run = await begun(max_attempts=2)
    done, given, unheard = [await steer(sql, job, text) for text in ("done", "given", "unheard")]
    stop = await sql.fetchval("select leasehold.interrupt($1)", job)
    await take(worker, run, ("steer", done), ("steer", given))
    await said(sql, run, ("turn", {"turn": done, "state": "ended"}))
    if way == "lost":
        await clock.forward(seconds=200)
        worker = await hire(instance="beta")
        assert await worker.reap()
    else:
        await worker.finish(run, way, {"failed": "exit_code", "interrupted": "stopped"}[way])
    assert (await turn(sql, stop))["outcome"] == "run_ended"
    run = await worker.claim_job(job)
    assert [text for _, _, text in await inputs(worker, run)] == ["given", "unheard"]
    assert "ended before it was done" in (await turn(sql, given))["why"]
    await take(worker, run, ("steer", given), ("steer", unheard))
    assert (await turn(sql, given))["run_id"] == run["run_id"]
    await worker.finish(run)
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 1
    await sane()


async def test_a_late_outcome_makes_no_job_of_what_its_agent_had(sql, worker, begun, hire, clock, sane):
    job, run = await begun()
    had, unheard = await steer(sql, job, "had"), await steer(sql, job, "unheard")
    await take(worker, run, ("steer", had))
    await clock.forward(seconds=200)
    assert await (await hire(instance="beta")).reap()
    await worker.finish(run)
    assert [(await turn(sql, one))["outcome"] for one in (had, unheard)] == ["run_ended", "follow_up"]
    await sane()


@pytest.mark.rule("A40", "AW7", "AW26", "G30")
async def test_no_turn_is_open_when_its_job_has_ended(sql, worker, begun, job, clock, sane):
    await sql.execute("update leasehold.agents set queue_timeout = '1 minute'")
    running, run = await begun()
    queued, late = await job(agent="talker"), await job(agent="talker")
    for one in (running, queued, late):
        await steer(sql, one)
    await sql.execute("select leasehold.cancel($1)", queued)
    await sql.execute("select leasehold.cancel($1)", running)
    await worker.finish(run, "cancelled", "cancelled")
    await clock.forward(seconds=61)
    assert await worker.expire() == [late]
    rows = await sql.fetch("select state, why from leasehold.turns order by id")
    assert [tuple(row) for row in rows] == [("cancelled", "the job was cancelled")] * 2 + [
        ("cancelled", "the job timed out")
    ]
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 3, "nobody wants what was cancelled"
    await sane()


async def test_a_follow_up_that_cannot_be_says_why(sql, worker, begun, sane):
    job, run = await begun()
    said_ = await steer(sql, job)
    await sql.execute("update leasehold.agents set status = 'retired' where name = 'talker'")
    await worker.finish(run)
    row = await turn(sql, said_)
    assert (row["state"], row["follow_up_job"]) == ("cancelled", None) and 'agent "talker" is retired' in row["why"]
    await sane()


@pytest.mark.rule("A52")
async def test_a_turn_is_taken_back_and_the_run_lives_on(sql, worker, begun, refused):
    job, run = await begun()
    waiting, given = await steer(sql, job, "waiting"), await steer(sql, job, "given")
    await take(worker, run, ("steer", given))
    assert await sql.fetchval("select leasehold.cancel_turn($1, 'no need')", waiting) == "cancelled"
    assert await sql.fetchval("select leasehold.cancel_turn($1)", given) == "cancelled"
    assert await inputs(worker, run) == []
    assert [(await turn(sql, one))["why"] for one in (waiting, given)] == ["no need", "it was taken back"]
    await said(sql, run, ("turn", {"turn": given, "state": "ended"}))
    assert (await turn(sql, given))["state"] == "cancelled", "the first end stands"
    assert await sql.fetchval("select leasehold.cancel_turn($1)", given) == "cancelled"
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "running"
    async with refused("LH104", "there is no turn 99"):
        await sql.execute("select leasehold.cancel_turn(99)")


async def test_what_cannot_be_interrupted_is_refused(sql, worker, job, refused):
    await hears(sql, "plain", "command")
    made = await job(agent="talker")
    async with refused("LH102", "nothing to interrupt"):
        await sql.execute("select leasehold.interrupt($1)", made)
    made = await job(agent="plain", priority=9)
    await worker.claim_job(made)
    async with refused("LH102", 'its adapter is "command"'):
        await sql.execute("select leasehold.interrupt($1)", made)


@pytest.mark.rule("A12", "A45")
async def test_a_prompt_is_given_to_an_agent_that_converses_but_cannot_be_steered(sql, worker, job):
    await hears(sql, "acp", "acp")
    made = await job(agent="acp")
    run = await worker.claim_one()
    await steer(sql, made)
    more = await steer(sql, made, "and then", kind="prompt")
    assert await inputs(worker, run) == [("prompt", more, "and then")]


@pytest.mark.rule("S43")
async def test_nobody_takes_the_turns_of_others(sql, worker, begun, hire, connect):
    job, run = await begun()
    said_ = await steer(sql, job)
    other = await hire(instance="beta")
    assert await inputs(other, run) == []
    await take(other, run, ("steer", said_))
    another, _ = await begun()
    await take(worker, run, ("steer", await steer(sql, another)))
    assert [row["state"] for row in await sql.fetch("select state from leasehold.turns")] == ["pending", "pending"]


async def test_whoever_steers_rings_the_worker(sql, begun, connect, worker):
    heard = []
    listener = await connect()
    await listener.add_listener(f"leasehold_worker_{worker.id}", lambda *said: heard.append(said[3]))
    job, _ = await begun()
    await steer(sql, job)
    await listener.execute("select 1")
    assert heard == [""]


async def test_why_tells_of_turns(sql, worker, begun):
    job, run = await begun()
    said_ = await steer(sql, job)
    lines = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", job)]
    assert any(line.startswith(f"Turn {said_} (steer by ") and "is on its way to its agent" in line for line in lines)
    await worker.finish(run)
    follow = (await turn(sql, said_))["follow_up_job"]
    lines = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", job)]
    assert any(line.startswith(f"Job {follow} follows it") for line in lines)


@pytest.mark.rule("A11", "S28")
@pytest.mark.parametrize(
    ("table", "column"),
    [("turns", "state"), ("turns", "kind"), ("turns", "outcome"), ("interactions", "kind"), ("interactions", "status")],
)
async def test_the_words_of_a_row_are_closed_lists(sql, begun, table, column):
    job, run = await begun()
    await steer(sql, job)
    await said(sql, run, ("permission", {"id": "p"}))
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"update leasehold.{table} set {column} = 'other'")


async def test_what_was_said_later_is_given_later_though_the_clock_has_stepped_back(sql, worker, begun, clock):
    job, run = await begun()
    await said(sql, run, permission())
    first = await steer(sql, job, "first")
    await clock.forward(minutes=-5)
    second = await steer(sql, job, "second")
    await clock.forward(minutes=10)
    await answer(sql, (await asked(sql))["id"], "allow")
    await clock.forward(minutes=-5)
    third = await steer(sql, job, "third")
    for again in (False, True):
        given = await inputs(worker, run, again=again)
        assert [number for kind, number, _ in given if kind == "steer"] == [first, second, third]
        assert [kind for kind, *_ in given][:2] == ["steer"] * 2, "and the answer where the clock says it was"
