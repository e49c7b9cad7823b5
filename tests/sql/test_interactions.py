"""Interactions: what an agent asks is a row and a notice, its job waits, and nothing stays open when its run has ended."""

import json
from datetime import timedelta

import asyncpg
import pytest
from sql.people import NOON
from sql.talks import COLOUR, answer, asked, hears, inputs, kinds, permission, question, said, steer, take, turn


@pytest.fixture
async def talker(sql, clock):
    return await hears(sql)


@pytest.fixture
async def worker(hire, talker):
    return await hire()


@pytest.fixture
async def begun(sql, worker, job):
    async def one(**columns):
        made = await job(**{"agent": "talker"} | columns)
        run = await worker.claim_job(made)
        await worker.start(run)
        return made, run

    return one


@pytest.fixture
def status(sql):
    async def one(job):
        return await sql.fetchval("select status from leasehold.jobs where id = $1", job)

    return one


@pytest.mark.rule("S9", "S92", "S93", "S95", "S119", "X28")
async def test_an_agent_asks_its_job_waits_and_runs_again_when_all_is_answered(
    sql, worker, begun, status, connect, sane
):
    heard = []
    listener = await connect()
    await listener.add_listener("leasehold_interactions", lambda *said: heard.append(said[3]))
    job, run = await begun(thread="t")
    await said(sql, run, permission(), question())
    await listener.execute("select 1")
    assert heard == [""]
    assert await status(job) == "waiting"
    rows = await sql.fetch("select * from leasehold.interactions where status = 'pending' order by id")
    assert [(row["kind"], row["external_id"], row["tool"], row["prompt"]) for row in rows] == [
        ("permission", "p1", "bash", "May I?"), ("question", "q1", None, "Tell me"),
    ]  # fmt: skip
    assert await sql.fetchval("select status from leasehold.threads where thread = 't'") == "waiting"
    assert "for a human" in await sql.fetchval("select situation from leasehold.job_overview")
    await sane()
    assert await answer(sql, rows[0]["id"], "proceed_once") == "answered"
    assert await status(job) == "waiting"
    assert await answer(sql, rows[1]["id"], "blue") == "answered"
    assert await status(job) == "running"
    assert await inputs(worker, run) == [
        ("answer", rows[0]["id"], {"request": "p1", "decision": "allow", "option": "proceed_once"}),
        ("answer", rows[1]["id"], {"request": "q1", "decision": "allow", "answers": {"colour": ["Blue"]}}),
    ]
    assert [row["run_id"] for row in await worker.renew([run]) if row["what"] == "input"] == [run["run_id"]]
    await take(worker, run, *await inputs(worker, run))
    assert await inputs(worker, run) == [] and len(await inputs(worker, run, again=True)) == 2
    assert [row["what"] for row in await worker.renew([run])] == ["renewed"]
    assert (await asked(sql))["delivered_at"] == NOON
    assert await kinds(sql, job, "interaction") == ["interaction_opened"] * 2 + ["interaction_answered"] * 2
    await worker.finish(run)
    await sane()


@pytest.mark.rule("SW15", "S92", "S123")
@pytest.mark.parametrize("end", ["answered", "withdrawn", "expired"])
async def test_what_was_asked_once_is_never_opened_again(sql, worker, begun, status, clock, end):
    await sql.execute("update leasehold.agents set answer_timeout = '1 minute'")
    job, run = await begun()
    await said(sql, run, permission(), permission())
    first = await asked(sql)
    if end == "answered":
        await answer(sql, first["id"], "deny", "not now")
    elif end == "withdrawn":
        await said(sql, run, ("withdrawn", {"id": "p1"}))
    else:
        await clock.forward(seconds=60)
        await sql.execute("select leasehold.expire_interactions($1, $2)", *worker.me)
    before = await asked(sql)
    assert (before["status"], await status(job)) == (end, "running")
    await said(sql, run, permission(tool="other"))
    assert await asked(sql) == before
    assert await status(job) == "running"


@pytest.mark.rule("SW16", "S119")
async def test_a_job_that_is_being_cancelled_does_not_wait(sql, worker, begun, status, sane):
    job, run = await begun()
    await sql.execute("select leasehold.cancel($1)", job)
    await said(sql, run, permission())
    assert (await asked(sql))["status"] == "pending" and await status(job) == "running"
    await answer(sql, (await asked(sql))["id"], "allow")
    assert await status(job) == "running"
    await worker.finish(run, "cancelled", "cancelled")
    await sane()


async def test_a_waiting_job_is_cancelled_as_one_that_runs(sql, worker, begun, status, sane):
    job, run = await begun()
    await said(sql, run, permission())
    assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
    assert [(row["what"], row["run_id"]) for row in await worker.renew([run])][1:] == [("cancel", run["run_id"])]
    await worker.finish(run, "cancelled", "cancelled")
    assert await status(job) == "cancelled" and (await asked(sql))["status"] == "closed"
    await sane()


@pytest.mark.rule("SW17")
@pytest.mark.parametrize("way", ["succeeded", "failed", "lost", "adopted away"])
async def test_what_is_open_is_closed_when_its_run_ends(sql, worker, begun, status, hire, clock, refused, sane, way):
    job, run = await begun(max_attempts=2)
    await said(sql, run, permission(), question())
    answered = await asked(sql)
    await answer(sql, answered["id"], "Red")
    if way == "lost":
        await clock.forward(seconds=200)
        assert await (await hire(instance="beta")).reap()
    elif way == "adopted away":
        assert await (await hire()).adopt() == [("ended", run["run_id"])]
    else:
        await worker.finish(run, way, {"failed": "exit_code"}.get(way))
    rows = await sql.fetch("select * from leasehold.interactions order by id")
    assert [(row["status"], row["to_deliver"], row["closed_at"] is not None) for row in rows] == [
        ("closed", False, True), ("answered", False, True),
    ]  # fmt: skip
    said_ = await sql.fetch("select message from leasehold.events where kind = 'interaction_closed' order by seq")
    assert [row["message"] for row in said_] == ["its run has ended", "its run ended before the answer reached it"]
    async with refused("LH107", "its run has ended"):
        await answer(sql, rows[0]["id"], "allow")
    assert await status(job) != "waiting"
    await sane()


async def test_an_adopted_run_goes_on_waiting(sql, worker, begun, status, hire):
    job, run = await begun()
    await said(sql, run, permission())
    life = await hire()
    assert await life.adopt([run]) == [("adopted", run["run_id"])]
    assert await status(job) == "waiting"
    await answer(sql, (await asked(sql))["id"], "allow")
    assert [kind for kind, *_ in await inputs(life, run)] == ["answer"] and await inputs(worker, run) == []


async def test_the_agents_own_decision_asks_nobody(sql, begun, status):
    job, run = await begun()
    await said(sql, run, permission(decision="denied"))
    assert await asked(sql) is None and await status(job) == "running"


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        (("question", {"questions": [COLOUR]}), "it has no id"),
        (("question", {"id": "q", "questions": []}), "it asks nothing"),
        (("question", {"id": "q"}), "not a list"),
        (("permission", {"id": "p", "options": {"a": 1}}), "not a list"),
        (("permission", {"id": "p", "options": [{"name": "x"}]}), "has no id"),
        (("permission", {"id": "x" * 501}), "longer than 500"),
        (("permission", []), "not an object"),
    ],
)
async def test_what_nobody_could_answer_asks_nobody_and_says_so(sql, begun, status, word, wrong):
    job, run = await begun()
    assert await said(sql, run, word) == []
    assert await sql.fetchval("select count(*) from leasehold.interactions where status = 'pending'") == 0
    assert await status(job) == "running"
    last = await sql.fetchrow(
        "select level, message from leasehold.events where job_id = $1 and kind = $2 order by seq desc limit 1",
        job,
        word[0],
    )
    assert last["level"] == "warning" and wrong in last["message"] and "nobody is asked" in last["message"]


async def test_what_nobody_could_answer_is_denied_at_once_so_that_its_agent_does_not_wait_for_ever(sql, worker, begun):
    _, run = await begun()
    await said(sql, run, ("question", {"id": "q", "questions": []}))
    [told] = await sql.fetch("select * from leasehold.read_inputs($1, $2, $3)", *worker.me, [run["run_id"]])
    assert json.loads(told["data"]) == {"request": "q", "decision": "deny", "message": "it asks nothing"}
    assert await sql.fetchval("select answered_by from leasehold.interactions") == "leasehold"


async def test_a_run_that_has_ended_asks_nothing(sql, worker, begun):
    _, run = await begun()
    await worker.finish(run)
    assert await said(sql, run, permission()) == [run["run_id"]]
    assert await asked(sql) is None


LIMITS = {
    "agent": "update leasehold.agents set max_running = 1",
    "tenant": "insert into leasehold.tenants (name, max_running) values ('acme', 1)",
    "queue": "insert into leasehold.queues (name, max_running) values ('slow', 1)",
    "repository": "insert into leasehold.repositories (tenant, name, max_running) values ('acme', 'site', 1)",
    "host": "insert into leasehold.hosts (host_id, max_running) values ('host', 1)",
    "all": "select leasehold.limit_all(1)",
}


@pytest.mark.parametrize("what", LIMITS)
@pytest.mark.parametrize("policy", ["keep", "release"])
async def test_a_run_that_waits_gives_up_its_place_if_its_agents_row_says_so(
    sql, worker, begun, job, status, sane, what, policy
):
    await sql.execute("update leasehold.agents set while_waiting = $1", policy)
    await sql.execute(LIMITS[what])
    place = {"tenant": "acme", "queue": "slow", "repository": "site"}
    made, run = await begun(**place)
    other = await job(agent="talker", **place)
    assert await worker.claim() == []
    await said(sql, run, permission())
    taken = await worker.claim()
    assert len(taken) == (policy == "release")
    assert await worker.claim() == []
    await answer(sql, (await asked(sql))["id"], "allow")
    assert await status(made) == "running" and not await sql.fetchval("select bool_or(released) from leasehold.runs")
    await worker.finish(run)
    assert [row["job_id"] for row in taken or await worker.claim()] == [other]


async def test_why_says_what_it_asks_and_how_to_answer(sql, begun):
    await sql.execute("update leasehold.agents set answer_timeout = '5 minutes'")
    job, run = await begun()
    await said(sql, run, permission())
    number = (await asked(sql))["id"]
    lines = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", job)]
    [line] = [line for line in lines if "It asks" in line]
    assert '"bash"' in line and '"May I?"' in line and "it is told no" in line
    assert line.endswith(f"SELECT leasehold.answer({number}, 'proceed_once');")
    await sql.execute(line.rpartition(": ")[2])
    assert (await asked(sql))["status"] == "answered"


@pytest.mark.rule("S94")
async def test_only_its_own_functions_write_an_interaction(login, sql, begun):
    _, run = await begun()
    await said(sql, run, permission())
    for role in ("leasehold_producer", "leasehold_worker", "leasehold_admin"):
        somebody = await login(role)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await somebody.execute("update leasehold.interactions set status = 'answered'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await somebody.execute("update leasehold.turns set state = 'ended'")


async def test_turns_and_interactions_go_with_their_job(sql, worker, begun):
    job, run = await begun()
    said_ = await steer(sql, job)
    await said(sql, run, permission())
    await worker.finish(run)
    follow = (await turn(sql, said_))["follow_up_job"]
    await sql.execute("select leasehold.cancel($1)", follow)
    await sql.execute("select leasehold.delete_job($1)", follow)
    assert (await turn(sql, said_))["follow_up_job"] is None
    await sql.execute("select leasehold.delete_job($1)", job)
    assert await turn(sql, said_) is None and await asked(sql) is None


async def test_tenants_see_and_answer_only_their_own(login, sql, worker, begun, refused):
    acme, globex = await login("leasehold_producer", "acme"), await login("leasehold_producer", "globex")
    job, run = await begun(tenant="acme")
    await said(sql, run, permission())
    said_, number = await steer(acme, job), (await asked(sql))["id"]
    assert await globex.fetch("select from leasehold.turns union all select from leasehold.interactions") == []
    async with refused("LH023"):
        await steer(globex, job)
    async with refused("LH105", f"there is no interaction {number}"):
        await answer(globex, number, "allow")
    async with refused("LH104"):
        await globex.execute("select leasehold.cancel_turn($1)", said_)
    async with refused("LH105", "there is no interaction 99"):
        await answer(acme, 99, "allow")
    assert await answer(acme, number, "allow") == "answered"
    assert await acme.fetchval("select count(*) from leasehold.turns") == 1


async def test_the_time_to_answer_is_the_agents(sql, begun):
    await sql.execute("update leasehold.agents set answer_timeout = '5 minutes'")
    _, run = await begun()
    await said(sql, run, permission())
    assert (await asked(sql))["expires_at"] == NOON + timedelta(minutes=5)
