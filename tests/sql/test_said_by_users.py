"""What users say is in the conversation, too: queued until an agent has it, once, and never left in a job that will not hear it."""

import pytest
from sql.talks import hears, inputs, steer, take


@pytest.fixture
async def worker(sql, clock, hire):
    await hears(sql)
    return await hire()


@pytest.fixture
async def begun(sql, worker, job):
    """A job at work and its run."""
    made = await job(agent="talker", prompt="Begin", thread="t")
    run = await worker.claim_job(made)
    await worker.start(run)
    return made, run


@pytest.fixture
def users(sql):
    """(content, status, run) of what users said in a job."""

    async def one(job):
        rows = await sql.fetch(
            "select * from leasehold.messages where job_id = $1 and role = 'user' and thread = 't' order by id", job
        )
        return [(row["content"], row["status"], row["run_id"]) for row in rows]

    return one


@pytest.mark.rule("S96", "SW32")
async def test_a_turn_is_a_message_that_is_queued_until_the_agent_has_it(sql, worker, begun, users):
    job, run = begun
    await steer(sql, job, "also the docs")
    prompt = ("Begin", "completed", run["run_id"])
    assert await users(job) == [prompt, ("also the docs", "queued", None)]
    await take(worker, run, *await inputs(worker, run))
    assert await users(job) == [prompt, ("also the docs", "completed", run["run_id"])]
    await worker.finish(run)
    assert len(await users(job)) == 2


async def test_the_prompt_comes_first_even_if_something_is_said_before_the_start(sql, worker, job, users):
    made = await job(agent="talker", prompt="Begin", thread="t")
    await steer(sql, made, "one")
    assert await users(made) == [("Begin", "queued", None), ("one", "queued", None)]
    run = await worker.claim_job(made)
    await worker.start(run)
    assert await users(made) == [("Begin", "completed", run["run_id"]), ("one", "queued", None)]


@pytest.mark.rule("S96", "SW32", "X28")
async def test_what_was_not_heard_is_the_first_that_is_said_in_the_follow_up_and_nowhere_else(
    sql, worker, begun, users
):
    job, run = begun
    await steer(sql, job, "one"), await steer(sql, job, "two")
    await worker.finish(run)
    assert await users(job) == [("Begin", "completed", run["run_id"])]
    follow_up = await sql.fetchval("select max(follow_up_job) from leasehold.turns")
    assert await users(follow_up) == [("one", "queued", None), ("two", "queued", None)]
    run = await worker.claim_job(follow_up)
    await worker.start(run)
    assert await users(follow_up) == [("one", "completed", run["run_id"]), ("two", "completed", run["run_id"])]
    await worker.finish(run)
    said = await sql.fetch("select content from leasehold.thread_messages where thread = 't' order by id")
    assert [row["content"] for row in said] == ["Begin", "one", "two"]


@pytest.mark.rule("SW8", "SW32", "S124")
async def test_nothing_stays_queued_in_a_job_that_has_ended(sql, worker, begun, users):
    job, run = begun
    await steer(sql, job, "one")
    await worker.finish(run)
    follow_up = await sql.fetchval("select max(follow_up_job) from leasehold.turns")
    await sql.execute("select leasehold.cancel($1)", follow_up)
    assert await users(follow_up) == [("one", "failed", None)]
    await sql.execute("select leasehold.retry($1)", follow_up)
    run = await worker.claim_job(follow_up)
    await worker.start(run)
    assert await users(follow_up) == [("one", "completed", run["run_id"])]


async def test_what_is_taken_back_was_not_said_and_a_stop_has_no_words(sql, worker, begun, users):
    job, _ = begun
    turn = await steer(sql, job, "one")
    await sql.execute("select leasehold.cancel_turn($1)", turn)
    await sql.execute("select leasehold.interrupt($1, 'enough')", job)
    assert (await users(job))[1:] == [("one", "failed", None)]


async def test_what_was_not_done_in_one_run_is_queued_for_the_next(sql, worker, begun, users):
    job, run = begun
    await steer(sql, job, "one")
    await take(worker, run, *await inputs(worker, run))
    await worker.finish(run, "interrupted", "stopped")
    assert (await users(job))[1][1] == "queued"
    run = await worker.claim_job(job)
    await worker.start(run)
    await take(worker, run, *await inputs(worker, run))
    assert (await users(job))[1:] == [("one", "completed", run["run_id"])]


async def test_a_follow_up_goes_with_all_that_was_said_in_it(sql, worker, begun):
    job, run = begun
    await steer(sql, job, "one")
    await worker.finish(run)
    follow_up = await sql.fetchval("select max(follow_up_job) from leasehold.turns")
    await sql.execute("select leasehold.cancel($1), leasehold.delete_job($1)", follow_up)
    assert await sql.fetchval("select array_agg(distinct job_id) from leasehold.messages") == [job]
    await sql.execute("select leasehold.delete_job($1)", job)
    assert await sql.fetchval("select count(*) from leasehold.messages") == 0
