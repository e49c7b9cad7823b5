"""wake(): every ask leaves a row that says what became of it, and leads to one job, exactly."""

import json
from datetime import timedelta

import pytest
from sql.wakes import asks, enqueue, wake


@pytest.fixture
def told(sql):
    """The context that a job of this wake is given."""

    async def one(**given):
        _, _, job, _ = await wake(sql, **given)
        return json.loads(await sql.fetchval("select context from leasehold.jobs where id = $1", job))

    return one


@pytest.mark.rule("P3", "P25", "P35", "P90", "O1")
async def test_a_wake_makes_a_job_and_a_row_with_all_that_was_said(sql, fixer, look):
    wakeup, disposition, job, why = await wake(
        sql, " FIXER", key="issue-7", reason="a comment", context='{"a": 1}', prompt="look", source="automation", trigger="callback",
        actor_type="agent", actor="scout", payload='{"b": 2}', priority=4, queue="slow", thread="t", idempotency_key="i",
    )  # fmt: skip
    assert (disposition, why) == ("accepted", None)
    row = await sql.fetchrow("select * from leasehold.wakeups")
    assert (row["id"], row["job_id"]) == (wakeup, job) and row["decided_at"] >= row["at"]
    said = ("fixer", "issue-7", "a comment", "automation", "callback", "agent", "scout", '{"b": 2}', "i", "accepted")
    names = (
        "agent",
        "key",
        "reason",
        "source",
        "trigger",
        "actor_type",
        "actor",
        "payload",
        "idempotency_key",
        "disposition",
    )
    assert tuple(row[name] for name in names) == said
    made = await look(job)
    assert [made[c] for c in ("prompt", "priority", "queue", "thread", "concurrency_key", "conflict_policy", "payload")] == [
        "look", 4, "slow", "t", "issue-7", "coalesce", '{"b": 2}',
    ]  # fmt: skip
    assert made["context"] == row["context"]


@pytest.mark.rule("P29")
async def test_a_bare_wake_is_on_demand_by_hand_and_by_the_login(sql, fixer, look):
    _, _, job, _ = await wake(sql)
    row = await sql.fetchrow("select source, trigger, actor, actor_type, key, reason from leasehold.wakeups")
    login = await sql.fetchval("select session_user::text")
    assert tuple(row) == ("on_demand", "manual", login, None, "agent:fixer", None)
    assert "LEASEHOLD_CONTEXT" in (await look(job))["prompt"]


@pytest.mark.rule("P26", "P28")
async def test_the_context_is_filled_where_it_is_blank_and_only_there(told, fixer):
    assert await told(
        reason="r", source="assignment", trigger="ping", payload='{"issueId": "i1", "commentId": "c1"}'
    ) == {
        "wakeReason": "r", "wakeSource": "assignment", "wakeTriggerDetail": "ping", "issueId": "i1", "taskId": "i1", "taskKey": "i1",
        "commentId": "c1", "wakeCommentId": "c1",
    }  # fmt: skip
    own = {"wakeReason": "mine", "wakeSource": "s", "wakeTriggerDetail": "t", "issueId": "i", "taskId": "ti", "taskKey": "tk",
           "commentId": "c", "wakeCommentId": "wc"}  # fmt: skip
    assert await told(reason="r", payload='{"issueId": "i1", "commentId": "c1"}', context=json.dumps(own)) == own
    blank = dict.fromkeys(own, " ") | {"wakeCommentId": None, "issueId": {"odd": 1}}
    filled = await told(
        key="other", reason="r", payload='{"taskId": "t2", "commentId": "c2"}', context=json.dumps(blank)
    )
    assert filled == {
        "wakeReason": "r", "wakeSource": "on_demand", "wakeTriggerDetail": "manual", "issueId": {"odd": 1}, "taskId": "t2",
        "taskKey": "t2", "commentId": "c2", "wakeCommentId": "c2",
    }  # fmt: skip


@pytest.mark.rule("P28")
@pytest.mark.parametrize(
    ("context", "payload", "comment"),
    [
        ({"wakeCommentId": "a", "commentId": "b"}, {"commentId": "c"}, "a"),
        ({"commentId": "b"}, {"commentId": "c"}, "b"),
        ({"wakeCommentId": "  "}, {"commentId": "c"}, "c"),
        ({}, {}, None),
    ],
)
async def test_which_comment_it_was(told, fixer, context, payload, comment):
    filled = await told(context=json.dumps(context), payload=json.dumps(payload))
    assert filled.get("wakeCommentId") == comment


@pytest.mark.rule("P27", "PW49")
@pytest.mark.parametrize(
    ("context", "payload", "key"),
    [
        ({"taskKey": "a", "taskId": "b", "issueId": "c"}, {"taskKey": "d"}, "a"),
        ({"taskId": "b", "issueId": "c"}, {"taskKey": "d"}, "b"),
        ({"issueId": "c", "taskKey": " ", "taskId": None}, {"taskKey": "d"}, "c"),
        ({"taskKey": ["no", "word"]}, {"taskKey": "d", "taskId": "e", "issueId": "f"}, "d"),
        ({}, {"taskId": "e", "issueId": "f"}, "e"),
        ({}, {"issueId": 17}, "17"),
        ({"other": "x"}, {"other": "y"}, "agent:fixer"),
    ],
)
async def test_the_key_comes_from_context_and_payload(sql, fixer, context, payload, key):
    await wake(sql, context=json.dumps(context), payload=json.dumps(payload))
    assert await sql.fetchval("select concurrency_key from leasehold.jobs") == key
    assert (await wake(sql, key=" given ", context=json.dumps(context)))[1] == "accepted"
    assert await sql.fetchval("select key from leasehold.wakeups order by id desc limit 1") == "given"


@pytest.mark.rule("P20", "P21", "P22", "P23")
async def test_a_wake_that_its_agent_does_not_want_is_skipped_and_leaves_a_row(sql, fixer):
    assert (await wake(sql, source="schedule"))[1] == "accepted"
    await sql.execute("update leasehold.agents set wake_on_schedule = false")
    _, *answer = await wake(sql, source="schedule")
    assert answer == ["skipped", None, "wake_on_schedule is off"]
    assert (await wake(sql, source="automation"))[1] == "coalesced"
    await sql.execute("update leasehold.agents set wake_on_schedule = true, wake_on_demand = false")
    for source in ("on_demand", "assignment", "automation"):
        assert (await wake(sql, source=source, reason="mine"))[1::2] == ("skipped", "wake_on_demand is off")
    assert (await wake(sql, source="schedule"))[1] == "coalesced"
    row = await sql.fetchrow("select *  from leasehold.wakeups order by id desc offset 1 limit 1")
    assert (row["reason"], row["why"], row["job_id"]) == ("mine", "wake_on_demand is off", None)
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 1


@pytest.mark.rule("S49", "P18", "P19")
async def test_nobody_and_those_who_are_not_to_be_asked_are_refused_and_nothing_is_recorded(sql, fixer, job, refused):
    async with refused("LH024", 'there is no agent "fixr"'):
        await wake(sql, "fixr")
    born = await job()
    await sql.execute("select leasehold.cancel($1)", born)
    for status, says in (("retired", "is retired"), ("pending_approval", "is not approved yet")):
        await sql.execute("update leasehold.agents set status = $1", status)
        async with refused("LH062", says):
            await wake(sql)
        async with refused("LH062", says):
            await job()
        async with refused("LH062", says):
            await sql.execute("select leasehold.retry($1)", born)
    assert await asks(sql) == []


@pytest.mark.rule("P41", "PW30", "PW50")
async def test_a_paused_agent_is_woken_and_its_jobs_wait(sql, worker):
    await sql.execute("select leasehold.pause_agent('fixer')")
    assert [(await wake(sql))[1], (await wake(sql))[1]] == ["accepted", "coalesced"]
    assert await worker.claim() == []
    await sql.execute("select leasehold.resume_agent('fixer')")
    assert len(await worker.claim()) == 1


@pytest.mark.rule("PW50")
async def test_what_was_queued_just_before_its_agent_was_retired_never_runs_and_says_so(sql, worker, job):
    born = await job()
    await sql.execute("update leasehold.agents set status = 'retired'")
    assert await worker.claim() == []
    assert await sql.fetchval("select situation from leasehold.job_overview") == "waiting: the agent is retired"
    why = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", born)]
    assert any("Its agent is retired" in line for line in why)


@pytest.mark.rule("PW49")
@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "timer"}, {"trigger": "x"}, {"actor_type": "robot"}, {"context": "[]"}, {"payload": "3"}, {"reason": "x" * 1001},
        {"idempotency_key": " "}, {"actor": "x" * 1001}, {"payload": json.dumps({"x": "y" * 1000000})},
    ],
)  # fmt: skip
async def test_what_a_wake_cannot_say_is_refused(sql, fixer, refused, wrong):
    async with refused("LH063", "a wake cannot have"):
        await wake(sql, **wrong)
    assert await asks(sql) == []


@pytest.mark.rule("PW22")
async def test_the_same_ask_gets_the_same_answer_and_wakes_once(sql, worker, refused):
    same = {"key": "k", "reason": "r", "context": '{"a": 1}', "idempotency_key": "i"}
    first = await wake(sql, **same)
    assert await wake(sql, **same) == first
    joined = await wake(sql, key="k", idempotency_key="j")
    assert joined[1] == "coalesced"
    assert await wake(sql, key="k", idempotency_key="j") == joined
    assert await sql.fetchval("select coalesced from leasehold.jobs") == 1
    for other in ({"reason": "other"}, {"context": "{}"}, {"key": "l"}, {"prompt": "p"}, {"source": "automation"}):
        async with refused("LH031", 'idempotency key "i" was used for another request'):
            await wake(sql, **same | other)
    await worker.finish(await worker.claim_one())
    assert await wake(sql, **same) == first
    assert len(await asks(sql)) == 2


@pytest.mark.rule("PW22", "P23")
async def test_a_skip_is_repeated_as_a_skip(sql, fixer):
    await sql.execute("update leasehold.agents set wake_on_demand = false")
    skipped = await wake(sql, idempotency_key="i")
    await sql.execute("update leasehold.agents set wake_on_demand = true")
    assert await wake(sql, idempotency_key="i") == skipped
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 0


@pytest.mark.rule("P34", "P38", "P40", "PW28", "PW29")
async def test_a_deferred_wake_is_promoted_with_its_own_reason_and_context(sql, worker, clock, story, sane):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    _, _, first, _ = await wake(sql, key="k")
    _, how, second, why = await wake(sql, "other", key="k", reason="mine", context='{"c": 1}')
    assert (how, why) == ("deferred", "its key is taken")
    before = await sql.fetchrow("select * from leasehold.wakeups where job_id = $1", second)
    assert before["decided_at"] is None
    await clock.forward(seconds=5)
    await worker.finish(await worker.claim_job(first))
    after = await sql.fetchrow("select * from leasehold.wakeups where job_id = $1", second)
    assert (after["disposition"], after["decided_at"]) == ("promoted", clock.now)
    for kept in ("reason", "context", "payload", "source"):
        assert after[kept] == before[kept]
    assert await story(second) == ["deferred", "promoted"]
    await sane()


@pytest.mark.rule("P38", "P90", "P92", "S72", "SW25")
@pytest.mark.parametrize(
    "end", ["succeeded", "failed", "blocked", "timed_out", "cancelled", "lost", "expired", "cancelled early"]
)
async def test_every_end_of_the_holder_hands_the_key_on_at_once(sql, worker, clock, end, look, sane):
    await sql.execute("update leasehold.agents set queue_timeout = '1 minute' where name = 'fixer'")
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    _, _, first, _ = await wake(sql, key="k")
    _, _, second, _ = await wake(sql, "other", key="k")
    if end == "expired":
        await clock.forward(seconds=61)
        assert await worker.expire() == [first]
    elif end == "cancelled early":
        await sql.execute("select leasehold.cancel($1)", first)
    else:
        await sql.execute("update leasehold.jobs set max_losses = 1 where id = $1", first)
        run = await worker.claim_job(first)
        reasons = {
            "failed": "exit_code",
            "blocked": "question",
            "timed_out": "total",
            "cancelled": "cancelled",
            "lost": "worker_lost",
        }
        await worker.finish(run, end, reasons.get(end))
    assert ((await look(first))["finished_at"] is not None, (await look(second))["status"]) == (True, "queued")
    assert await asks(sql) == [("accepted", first), ("promoted", second)]
    await sane()


@pytest.mark.rule("P33", "P43", "X28", "PW25")
async def test_wakes_while_it_runs_are_one_more_run_that_knows_them_all(sql, worker):
    await wake(sql, key="k")
    run = await worker.claim_one()
    for n in range(5):
        await wake(sql, key="k", context=json.dumps({f"n{n}": n}), payload=json.dumps({"commentId": f"c{n}"}))
    await worker.finish(run)
    [run] = await worker.claim()
    [body] = await worker.read([run])
    context = json.loads(body["context"])
    assert {f"n{n}": n for n in range(5)}.items() <= context.items()
    assert (context["commentId"], context["wakeCommentId"]) == ("c4", "c4")
    await worker.finish(run)
    assert await worker.claim() == []
    assert [how for how, _ in await asks(sql)] == ["accepted", "promoted", *["coalesced"] * 4]


async def test_the_other_policies_answer_wakes_without_an_error(sql, fixer):
    _, _, holder, _ = await wake(sql, key="k")
    assert (await wake(sql, key="k", conflict_policy="return_existing"))[1:3] == ("existing", holder)
    assert (await wake(sql, key="k", conflict_policy="reject"))[1:] == ("rejected", holder, "its key is taken")
    assert (await wake(sql, key="k", conflict_policy="defer"))[1] == "deferred"
    assert (await wake(sql, key="k", conflict_policy="allow"))[1] == "accepted"
    assert [how for how, _ in await asks(sql)] == ["accepted", "existing", "rejected", "deferred", "accepted"]


@pytest.mark.rule("PW12")
async def test_tenants_are_kept_apart(sql, fixer, login, refused):
    acme, globex = await login("leasehold_producer", "acme"), await login("leasehold_producer", "globex")
    mine, how, job, _ = await wake(acme, key="k")
    assert how == "accepted"
    assert (await wake(globex, key="k"))[1] == "accepted"
    assert await acme.fetchval("select array_agg(id) from leasehold.wakeups") == [mine]
    for attempt in (
        "leasehold.wake('fixer', tenant => 'acme')",
        "leasehold.enqueue('fixer', 'x', tenant => 'acme', idempotency_key => 'i')",
    ):
        async with refused("LH030"):
            await globex.execute(f"select {attempt}")
    async with refused("LH023"):
        await globex.execute("select leasehold.cancel($1)", job)
    assert await globex.fetchval("select leasehold.cancel_agent('fixer')") == 1
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "queued"


@pytest.mark.rule("P78", "P79", "PW13")
async def test_all_that_an_agent_has_to_do_is_ended_at_once(sql, worker, job, look, sane):
    await sql.execute("insert into leasehold.agents (name, command) values ('other', '{true}')")
    running, queued = await job(), await job(concurrency_key="k")
    run = await worker.claim_job(running)
    behind, theirs = await job(concurrency_key="k"), await job(concurrency_key="k", agent="other")
    assert await sql.fetchval("select leasehold.cancel_agent(' Fixer', 'enough')") == 3
    assert [(await look(j))["status"] for j in (running, queued, behind, theirs)] == [
        "running",
        "cancelled",
        "cancelled",
        "queued",
    ]
    assert (await look(behind))["message"] == "enough"
    assert [row[0] for row in await worker.renew([run])] == ["renewed", "cancel"]
    await worker.finish(run, "cancelled", "cancelled")
    assert [r["job_id"] for r in await worker.claim()] == [theirs]
    assert await sql.fetchval("select leasehold.cancel_agent('fixer')") == 0
    await sane()


async def test_an_agent_that_is_not_there_cannot_be_cancelled(sql, refused):
    async with refused("LH024"):
        await sql.execute("select leasehold.cancel_agent('nobody')")


@pytest.mark.rule("P77")
async def test_cancelling_a_deferred_wake_leaves_the_holder_alone(sql, fixer, look, sane):
    _, _, first, _ = await wake(sql, key="k")
    _, _, second, _ = await wake(sql, key="k", conflict_policy="defer")
    assert await sql.fetchval("select leasehold.cancel($1)", second) == "cancelled"
    assert (await look(first))["status"] == "queued"
    assert await sql.fetchval("select leasehold.retry($1)", second) == "deferred"
    await sane()


@pytest.mark.rule("P39", "P90", "PW29")
@pytest.mark.parametrize("end", ["cancelled", "expired", "retired"])
async def test_an_ask_whose_job_ends_before_its_turn_waits_no_more(sql, hire, fixer, clock, sane, end):
    await sql.execute("update leasehold.agents set queue_timeout = '10 minutes'")
    patient = await hire(lease=timedelta(days=1))
    await wake(sql, key="k")
    run = await patient.claim_one()
    wakeup, disposition, job, _ = await wake(sql, key="k")
    assert disposition == "deferred"
    if end == "cancelled":
        await sql.execute("select leasehold.cancel($1)", job)
    elif end == "expired":
        await clock.forward(minutes=11)
        assert await patient.expire() == [job]
    else:
        await sql.execute("update leasehold.agents set status = 'retired'")
        await patient.finish(run)
    row = await sql.fetchrow("select disposition, why, job_id, decided_at from leasehold.wakeups where id = $1", wakeup)
    assert (row["disposition"], row["job_id"], row["decided_at"]) == ("rejected", job, clock.now)
    ended = {"cancelled": "was cancelled", "expired": "timed out", "retired": "failed"}[end]
    assert row["why"] == f"its job {ended} before its key was free"
    await sane()


@pytest.mark.rule("PW30")
@pytest.mark.parametrize("source", ["schedule", "on_demand"])
async def test_what_is_not_wanted_any_more_when_its_turn_comes_is_skipped(sql, worker, job, look, sane, source):
    switch = f"wake_on_{source.removeprefix('on_')}"
    await job(concurrency_key="k")
    run = await worker.claim_one()
    _, disposition, woken, _ = await wake(sql, key="k", source=source)
    assert disposition == "deferred"
    await wake(sql, key="k", source=source)
    plain = await job(concurrency_key="k")
    await sql.execute(f"update leasehold.agents set {switch} = false")
    await worker.finish(run)
    assert [(await look(j))["status"] for j in (woken, plain)] == ["cancelled", "queued"]
    assert await sql.fetch("select disposition, why from leasehold.wakeups") == [("skipped", f"{switch} is off")] * 2
    assert switch in (await look(woken))["message"]
    await sane()


async def test_what_somebody_else_wants_too_is_done(sql, worker, job, look, sane):
    await job(concurrency_key="k")
    run = await worker.claim_one()
    _, _, woken, _ = await wake(sql, key="k")
    assert await enqueue(sql, conflict_policy="coalesce", concurrency_key="k") == (woken, "coalesced")
    await sql.execute("update leasehold.agents set wake_on_demand = false")
    await worker.finish(run)
    assert (await look(woken))["status"] == "queued"
    await sane()
