"""An ask for a key whose agent is at work: told to it if it takes such a thing, else a job behind it; heard in any case."""

import json

import pytest
from sql.talks import hears, inputs, kinds, said, take, turn
from sql.wakes import wake


@pytest.fixture
async def worker(sql, clock, hire):
    await hears(sql)
    return await hire()


async def wakeup(sql, answered):
    return await sql.fetchrow("select * from leasehold.wakeups where id = $1", answered[0])


@pytest.mark.rule("P43", "PW24", "PW25", "X28")
async def test_an_agent_at_work_that_can_be_steered_is_told(sql, worker, look, sane):
    first = await wake(sql, agent="talker", key="k", prompt="Look at it")
    run = await worker.claim_one()
    more = await wake(sql, agent="talker", key="k", reason="it is red", context=json.dumps({"build": 7}))
    assert more[1:3] == ("coalesced", first[2])
    row = await wakeup(sql, more)
    assert row["why"] == "the agent at work on its key is told"
    [(kind, told, text)] = await inputs(worker, run)
    assert (kind, told) == ("steer", row["turn_id"])
    assert "it is red" in text and '"build": 7' in text
    assert (await look(first[2]))["coalesced"] == 1
    await take(worker, run, (kind, told))
    await said(sql, run, ("turn", {"turn": told, "state": "ended"}))
    await worker.finish(run)
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 1
    await sane()


@pytest.mark.rule("X28", "PW24")
async def test_what_it_was_not_told_in_time_becomes_a_job(sql, worker, look, sane):
    first = await wake(sql, agent="talker", key="k")
    run = await worker.claim_one()
    more = await wake(sql, agent="talker", key="k", prompt="And the docs")
    await worker.finish(run)
    told = await turn(sql, (await wakeup(sql, more))["turn_id"])
    follow = await look(told["follow_up_job"])
    assert (follow["status"], follow["concurrency_key"]) == ("queued", "k") and "And the docs" in follow["prompt"]
    assert follow["id"] != first[2]
    await sane()


@pytest.mark.rule("P43")
@pytest.mark.parametrize("why", ["a comment", "another adapter", "later", "another agent", "being cancelled"])
async def test_else_it_is_one_job_behind_it(sql, worker, why, sane):
    if why == "another adapter":
        await sql.execute("update leasehold.agents set adapter = 'command'")
    await hears(sql, "other")
    first = await wake(sql, agent="talker", key="k")
    run = await worker.claim_one()
    more = {"context": json.dumps({"commentId": 7})} if why == "a comment" else {}
    if why == "later":
        more["run_at"] = await sql.fetchval("select leasehold.clock() + interval '1 hour'")
    if why == "being cancelled":
        await sql.execute("select leasehold.cancel($1)", first[2])
    answers = [
        await wake(sql, agent="other" if why == "another agent" else "talker", key="k", **more) for _ in range(2)
    ]
    assert len({one[2] for one in answers}) == 1 and answers[0][2] != first[2]
    assert await inputs(worker, run) == [] and await kinds(sql, first[2], "turn_") == []
    await sane()


@pytest.mark.rule("PW24")
async def test_no_ask_is_lost_when_there_is_more_than_its_agent_can_hear_at_once(sql, worker, look, sane):
    first = await wake(sql, agent="talker", key="k")
    run = await worker.claim_one()
    asks = [await wake(sql, agent="talker", key="k", prompt=f"{n} " + "x" * 250_000) for n in range(5)]
    assert [one[2] == first[2] for one in asks] == [True] * 3 + [False] * 2
    await worker.finish(run)
    rows = await sql.fetch("select t.outcome from leasehold.turns t order by id")
    assert [row["outcome"] for row in rows] == ["follow_up"] * 3
    await sane()


async def test_turns_of_a_job_that_joins_another_go_with_it(sql, worker, job, sane):
    await sql.execute("update leasehold.agents set adapter = 'acp'")
    await wake(sql, agent="talker", key="k")
    run = await worker.claim_one()
    waiting = (await wake(sql, agent="talker", key="k"))[2]
    said_ = await sql.fetchval("select leasehold.prompt($1, 'and this')", waiting)
    target = await job(agent="talker", concurrency_key="k", conflict_policy="defer", priority=9)
    await worker.finish(run)
    [run] = await worker.claim()
    assert run["job_id"] == target
    row = await turn(sql, said_)
    assert (row["state"], row["outcome"], row["follow_up_job"]) == ("ended", "moved", target)
    assert [text for _, _, text in await inputs(worker, run)] == ["and this"]
    await sane()


async def test_jobs_whose_turns_are_more_than_one_can_hold_stay_apart(sql, worker, job, sane):
    await sql.execute("update leasehold.agents set adapter = 'acp'")
    await wake(sql, agent="talker", key="k")
    run = await worker.claim_one()
    waiting = (await wake(sql, agent="talker", key="k"))[2]
    target = await job(agent="talker", concurrency_key="k", conflict_policy="defer", priority=9)
    for one in (waiting, target):
        for _ in range(3):
            await sql.execute("select leasehold.prompt($1, $2)", one, "x" * 250_000)
    await worker.finish(run)
    [run] = await worker.claim()
    assert run["job_id"] == target
    await worker.finish(run)
    rows = await sql.fetch("select state, outcome from leasehold.turns where job_id = $1", target)
    assert [tuple(row) for row in rows] == [("ended", "follow_up")] * 3
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", waiting) != "cancelled"
    await sane()
