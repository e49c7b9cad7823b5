"""A message of a thread, as its readers find it, and every way its status can go: of users' words, of the prompt, of the agent's."""

from itertools import product

import pytest
from sql.talks import hears, inputs, steer, take

NAMES = ("thread", "tenant", "job_id", "run_id", "role", "content", "status", "truncated", "created_at", "updated_at")


@pytest.fixture
async def worker(sql, clock, hire):
    await hears(sql)
    return await hire()


@pytest.fixture
async def begun(worker, job):
    """A job at work in a thread, and its run."""
    made = await job(agent="talker", prompt="Begin", thread="t", tenant="acme")
    run = await worker.claim_job(made)
    await worker.start(run)
    return made, run


@pytest.fixture
def status(sql):
    """The status of the message with these words."""

    async def one(content):
        return await sql.fetchval("select status from leasehold.messages where content = $1", content)

    return one


@pytest.mark.rule("S13", "S64")
async def test_a_message_says_whose_it_is_in_which_thread_who_said_it_and_when(sql, begun, tell, login, clock):
    job, run = begun
    began = clock.now
    await clock.forward(minutes=1)
    await tell((run, 1, "delta", "He", {"id": "m"}))
    await clock.forward(minutes=1)
    await tell((run, 2, "message", "Hello", {"id": "m"}))
    reader = await login("leasehold_reader", "acme")
    prompt, answer = await reader.fetch("select * from leasehold.thread_messages where thread = 't' order by id")
    whose = ("t", "acme", job, run["run_id"])
    assert tuple(prompt[name] for name in NAMES[:8]) == (*whose, "user", "Begin", "completed", False)
    assert tuple(answer[name] for name in NAMES[:8]) == (*whose, "assistant", "Hello", "completed", False)
    assert answer["created_at"] < answer["updated_at"] == clock.now and prompt["created_at"] == began
    assert prompt["metadata"] == "{}"
    await steer(sql, job, "more")
    said = await sql.fetchval("select metadata ->> 'turn' from leasehold.thread_messages where content = 'more'")
    assert said == "steer"


@pytest.mark.rule("S124")
async def test_what_a_user_says_is_queued_until_it_is_heard_or_never_will_be(sql, worker, begun, status):
    job, run = begun
    assert await status("Begin") == "completed"
    await steer(sql, job, "heard")
    assert await status("heard") == "queued"
    await take(worker, run, *await inputs(worker, run))
    assert await status("heard") == "completed"
    taken_back = await steer(sql, job, "taken back")
    await sql.execute("select leasehold.cancel_turn($1)", taken_back)
    assert await status("taken back") == "failed"


@pytest.mark.rule("S124")
@pytest.mark.parametrize(("before", "after"), [*product(("streaming", "completed", "failed"), repeat=2)])
async def test_what_an_agent_says_goes_from_any_status_to_any_by_its_own_whole(begun, tell, status, before, after):
    _, run = begun
    await tell((run, 1, "message", "word", {"id": "m", "status": before}))
    assert await status("word") == before
    await tell((run, 2, "message", "word", {"id": "m", "status": after}))
    assert await status("word") == after


@pytest.mark.rule("S124")
async def test_nobody_but_the_run_that_said_it_changes_a_message(sql, begun, worker, job, tell, status):
    _, run = begun
    await tell((run, 1, "message", "mine", {"id": "m", "status": "streaming"}))
    other = await worker.claim_job(await job(agent="talker", thread="t", tenant="acme"))
    await tell((other, 1, "message", "yours", {"id": "m"}))
    assert (await status("mine"), await status("yours")) == ("streaming", "completed")
    await worker.finish(run)
    await tell((run, 2, "message", "too late", {"id": "m", "status": "failed"}))
    assert await status("mine") == "completed"
