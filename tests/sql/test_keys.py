"""Conflict policies: what becomes of a new job while its concurrency key has a live one."""

import json

import pytest
from sql.wakes import asks, enqueue


@pytest.fixture
async def holder(worker, job):
    """A running job that has the key `k`."""
    born = await job(concurrency_key="k")
    return await worker.claim_job(born)


@pytest.mark.rule("P34")
async def test_defer_is_the_default_and_waits_behind_the_key(sql, holder, job, look):
    assert (await look(await job(concurrency_key="k")))["status"] == "deferred"
    assert (await enqueue(sql, concurrency_key="k", conflict_policy="defer"))[1] == "deferred"


@pytest.mark.rule("S67", "S68", "S72")
@pytest.mark.parametrize("status", ["queued", "running"])
async def test_reject_refuses_while_a_job_of_the_key_is_not_done_and_names_it(sql, worker, job, refused, look, status):
    first = await job(concurrency_key="k")
    if status == "running":
        await worker.claim_one()
    async with refused("LH060", 'the key "k" is taken') as refusal:
        await job(concurrency_key="k", conflict_policy="reject")
    assert refusal.error.detail == f"job_id={first}"
    async with refused("LH060"):
        await enqueue(sql, concurrency_key="k", conflict_policy="reject")
    await sql.execute("select leasehold.cancel($1)", first)
    if status != "running":
        assert (await look(await job(concurrency_key="k", conflict_policy="reject")))["status"] == "queued"


@pytest.mark.rule("S69")
async def test_return_existing_answers_with_the_job_that_has_the_key(sql, holder):
    assert await enqueue(sql, concurrency_key="k", conflict_policy="return_existing") == (holder["job_id"], "existing")
    assert await enqueue(sql, concurrency_key="l", conflict_policy="return_existing") != (holder["job_id"], "existing")


@pytest.mark.rule("S69")
async def test_an_insert_cannot_answer_with_another_job_and_says_who_can(holder, job, refused):
    for policy in ("return_existing", "coalesce"):
        async with refused("LH061", 'the key "k" is taken') as refusal:
            await job(concurrency_key="k", conflict_policy=policy)
        assert refusal.error.detail == f"job_id={holder['job_id']}" and "enqueue" in refusal.error.hint


@pytest.mark.rule("P31", "P92")
async def test_allow_takes_no_part_in_the_key(sql, worker, job, look, sane, story):
    first, free, behind = await job(concurrency_key="k"), await job(concurrency_key="k", conflict_policy="allow"), await job(
        concurrency_key="k"
    )  # fmt: skip
    assert [(await look(j))["status"] for j in (first, free, behind)] == ["queued", "queued", "deferred"]
    runs = {run["job_id"]: run for run in await worker.claim(9)}
    assert set(runs) == {first, free}
    await sane()
    await worker.finish(runs[free])
    assert (await look(behind))["status"] == "deferred"  # the end of an outsider frees nothing
    other = await job(concurrency_key="m", conflict_policy="allow")
    assert (await look(await job(concurrency_key="m")))["status"] == "queued"
    await sql.execute("select leasehold.cancel($1)", other)
    await sql.execute("select leasehold.retry($1)", other)
    assert (await look(other))["status"] == "queued"
    await worker.finish(runs[first])
    assert (await look(behind))["status"] == "queued"
    await sane()


@pytest.mark.rule("P33", "P37", "P42", "PW24", "PW27")
async def test_coalescing_into_a_queued_job_merges_the_context_and_counts(sql, fixer, look, story, sane):
    first = await enqueue(sql, concurrency_key="k", conflict_policy="coalesce", context='{"a": 1, "b": 1}')
    again = await enqueue(sql, concurrency_key="k", conflict_policy="coalesce", context='{"b": 2, "commentId": "c9"}')
    assert (first[1], again) == ("accepted", (first[0], "coalesced"))
    job = await look(first[0])
    assert json.loads(job["context"]) == {"a": 1, "b": 2, "commentId": "c9", "wakeCommentId": "c9"}
    assert (job["coalesced"], job["prompt"]) == (1, "do it")
    assert await story(first[0]) == ["queued", "coalesced"]
    await sane()


@pytest.mark.rule("X28")
async def test_another_prompt_is_not_swallowed_and_the_same_is_not_said_twice(sql, fixer, look):
    first, _ = await enqueue(sql, "read a", concurrency_key="k", conflict_policy="coalesce")
    for prompt in ("read b", "read b", "read a"):
        assert await enqueue(sql, prompt, concurrency_key="k", conflict_policy="coalesce") == (first, "coalesced")
    assert (await look(first))["prompt"] == "read a\n\nread b"
    assert (await enqueue(sql, "x" * 1048570, concurrency_key="k", conflict_policy="coalesce"))[1] == "deferred"


async def test_asks_that_join_are_done_at_the_highest_priority_and_the_earliest_time(sql, worker, clock, look):
    first, _ = await enqueue(sql, concurrency_key="k", priority=3, run_at=clock.now.replace(year=2031))
    assert await worker.claim() == []
    await enqueue(sql, concurrency_key="k", conflict_policy="coalesce", priority=7)
    assert ((await look(first))["priority"], (await look(first))["run_at"]) == (7, clock.now)
    assert (await worker.claim_one())["job_id"] == first


async def test_a_backoff_is_not_cut_short_by_an_ask(sql, worker, look):
    first, _ = await enqueue(sql, concurrency_key="k", max_attempts=2)
    await worker.fail(await worker.claim_one())
    before = (await look(first))["run_at"]
    assert await enqueue(sql, concurrency_key="k", conflict_policy="coalesce") == (first, "coalesced")
    assert (await look(first))["run_at"] == before


@pytest.mark.rule("P43", "P44", "PW24", "PW25", "X28")
async def test_a_running_job_gets_exactly_one_follow_up(sql, worker, holder, look, sane):
    before = await look(holder["job_id"])
    follow, how = await enqueue(sql, concurrency_key="k", conflict_policy="coalesce", context='{"n": 1, "a": 1}')
    assert how == "deferred"
    for n in (2, 3):
        ask = await enqueue(sql, concurrency_key="k", conflict_policy="coalesce", context=json.dumps({"n": n}))
        assert ask == (follow, "coalesced")
    assert await look(holder["job_id"]) == before
    await worker.finish(holder)
    [run] = await worker.claim()
    [body] = await worker.read([run])
    assert (run["job_id"], json.loads(body["context"])) == (follow, {"a": 1, "n": 3})
    assert await asks(sql) == [("promoted", follow), ("coalesced", follow), ("coalesced", follow)]
    await sane()


@pytest.mark.rule("P34", "PW26")
async def test_only_asks_of_the_same_agent_become_one(sql, holder, look):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    mine, _ = await enqueue(sql, concurrency_key="k", conflict_policy="coalesce")
    theirs, how = await enqueue(sql, agent="other", concurrency_key="k", conflict_policy="coalesce")
    assert (theirs != mine, how) == (True, "deferred")
    assert await enqueue(sql, agent=" OTHER", concurrency_key="k", conflict_policy="coalesce") == (theirs, "coalesced")


@pytest.mark.rule("S67", "SW40", "PW22")
async def test_the_same_request_joins_once(sql, fixer, look, refused, story):
    same = {"concurrency_key": "k", "conflict_policy": "coalesce", "idempotency_key": "i"}
    holder, _ = await enqueue(sql, concurrency_key="k")
    assert await enqueue(sql, **same) == (holder, "coalesced")
    assert await enqueue(sql, **same) == (holder, "existing")
    assert (await look(holder))["coalesced"] == 1
    async with refused("LH031", 'idempotency key "i" was used for another request'):
        await enqueue(sql, "other", **same)
    async with refused("LH031"):
        await enqueue(sql, **same | {"conflict_policy": "defer"})
    await sql.execute("select leasehold.cancel($1)", holder)
    assert await enqueue(sql, **same) == (holder, "existing")  # whatever became of it


@pytest.mark.parametrize("policy", ["reject", "return_existing", "coalesce"])
async def test_a_request_repeated_while_its_own_job_has_the_key_is_no_conflict(sql, fixer, policy):
    same = {"concurrency_key": "k", "conflict_policy": policy, "idempotency_key": "i"}
    first, _ = await enqueue(sql, **same)
    assert await enqueue(sql, **same) == (first, "existing")
    await sql.execute(
        "insert into leasehold.jobs (agent, prompt, concurrency_key, conflict_policy, idempotency_key)"
        " values ('fixer', 'do it', 'k', $1, 'i') on conflict do nothing",
        policy,
    )
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 1


async def test_what_an_insert_made_is_found_by_the_same_request_that_may_join(sql, fixer, job):
    born = await job(concurrency_key="k", conflict_policy="coalesce", idempotency_key="i")
    same = {"concurrency_key": "k", "conflict_policy": "coalesce", "idempotency_key": "i"}
    assert await enqueue(sql, **same) == (born, "existing")


async def test_a_mistake_is_refused_before_anything_is_joined(sql, fixer, refused):
    await enqueue(sql, concurrency_key="k")
    for code, wrong in (("LH006", {"priority": -1}), ("LH005", {"context": "[]"}), ("LH001", {"agent": "fixr"}), ("LH003", {"prompt": " "}), ("LH007", {"conflict_policy": "x"})):  # fmt: skip
        async with refused(code):
            await enqueue(sql, **{"concurrency_key": "k", "conflict_policy": "coalesce"} | wrong)
    assert await asks(sql) == []


@pytest.mark.rule("P38", "PW30")
async def test_the_next_one_is_of_an_agent_that_may_run_and_a_paused_agents_waits(sql, worker, holder, look, sane):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    paused, _ = await enqueue(sql, concurrency_key="k")
    free, _ = await enqueue(sql, agent="other", concurrency_key="k")
    await sql.execute("select leasehold.pause_agent('fixer')")
    await worker.finish(holder)
    assert [(await look(j))["status"] for j in (paused, free)] == ["deferred", "queued"]
    await worker.finish(await worker.claim_one())
    assert (await look(paused))["status"] == "queued"
    assert await worker.claim() == []
    await sql.execute("select leasehold.resume_agent('fixer')")
    assert (await worker.claim_one())["job_id"] == paused
    await sane()


@pytest.mark.rule("P39")
async def test_what_waits_for_a_retired_agent_fails_visibly_and_the_next_one_comes(sql, worker, holder, look, sane):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    gone, _ = await enqueue(sql, agent="other", concurrency_key="k", priority=9)
    free, _ = await enqueue(sql, concurrency_key="k")
    await sql.execute("update leasehold.agents set status = 'retired' where name = 'other'")
    await worker.finish(holder)
    ended = await look(gone)
    assert (ended["status"], ended["reason"]) == ("deferred", None)  # others who may run go first
    await worker.finish(await worker.claim_job(free))
    ended = await look(gone)
    assert (ended["status"], ended["reason"]) == ("failed", "agent_retired")
    assert ended["message"] == 'agent "other" was retired before its turn came'
    await sane()
