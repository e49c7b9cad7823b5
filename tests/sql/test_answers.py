"""Answers: once, from among the options, by a human or by a rule that somebody wrote; and what follows when nobody answers."""

import json
from datetime import timedelta

import asyncpg
import pytest
from sql.people import NOON
from sql.talks import COLOUR, PARTS, WORDS, answer, asked, hears, inputs, kinds, permission, question, said, take


@pytest.fixture
async def talker(sql, clock):
    return await hears(sql)


@pytest.fixture
async def worker(hire, talker):
    return await hire()


@pytest.fixture
async def run(worker, job):
    await job(agent="talker")
    return await worker.claim_one()


async def response(sql):
    row = await asked(sql)
    return json.loads(row["response"])


@pytest.mark.rule("SW17", "S94")
@pytest.mark.parametrize(
    ("word", "decision", "option"),
    [
        ("proceed_once", "allow", "proceed_once"),
        ("proceed_always", "allow", "proceed_always"),
        ("Always", "allow", "proceed_always"),
        ("allow", "allow", "proceed_once"),
        (" APPROVE ", "allow", "proceed_once"),
        ("cancel", "deny", "cancel"),
        ("no", "deny", "cancel"),
        ("reject", "deny", "cancel"),
    ],
)
async def test_a_permission_is_given_by_option_name_or_plain_word(sql, run, word, decision, option):
    await said(sql, run, permission())
    await answer(sql, (await asked(sql))["id"], word, "be careful")
    assert await response(sql) == {"decision": decision, "option": option, "message": "be careful"}
    row = await asked(sql)
    assert (row["answered_by"], row["answered_at"]) == (await sql.fetchval("select session_user"), NOON)


async def test_a_permission_without_options_is_yes_or_no(sql, run):
    await said(sql, run, ("permission", {"id": 7, "tool": "bash"}))
    await answer(sql, (await asked(sql))["id"], "deny")
    assert await response(sql) == {"decision": "deny"} and (await asked(sql))["external_id"] == "7"


@pytest.mark.parametrize(
    ("questions", "word", "answers", "given"),
    [
        ([COLOUR], "blue", None, {"colour": ["Blue"]}),
        ([WORDS], " because ", None, {"words": ["because"]}),
        ([COLOUR, PARTS], None, {"colour": "Red", "parts": ["a", "C"]}, {"colour": ["Red"], "parts": ["A", "C"]}),
        ([COLOUR | {"free_text": True}], "green", None, {"colour": ["green"]}),
    ],
)
async def test_questions_are_answered_by_label_or_words(sql, run, questions, word, answers, given):
    await said(sql, run, question(*questions))
    await answer(sql, (await asked(sql))["id"], word, answers=answers)
    assert await response(sql) == {"decision": "allow", "answers": given}


async def test_a_question_may_be_declined(sql, run):
    await said(sql, run, question(COLOUR, WORDS))
    await answer(sql, (await asked(sql))["id"], message="you choose", answers={})
    assert await response(sql) == {"decision": "deny", "message": "you choose"}


@pytest.mark.parametrize(
    ("asks", "word", "answers", "says", "hint"),
    [
        (
            permission(),
            "maybe",
            None,
            '"maybe" is not one of its options',
            "proceed_once, proceed_always, cancel, allow, deny",
        ),
        (permission(), None, None, "say one of its options", "proceed_once"),
        (permission(), "allow", {"x": "y"}, "say one of its options", "proceed_once"),
        (question(), "green", None, '"green" is no answer to question "colour"', "Red, Blue"),
        (question(), None, None, "say either one answer", "SELECT"),
        (question(), "Red", {"colour": "Red"}, "say either one answer", "SELECT"),
        (question(COLOUR, WORDS), "Red", None, "it asks several questions", "colour, words"),
        (question(COLOUR, WORDS), None, {"colour": "Red"}, 'question "words" is not answered', "SELECT"),
        (question(), None, {"shape": "round"}, 'it asks no question "shape"', "colour"),
        (question(), None, {"colour": ["Red", "Blue"]}, "takes one answer, not 2", "Red, Blue"),
        (question(), None, {"colour": [3]}, "a blank is no answer", "Red, Blue"),
        (question(), None, ["Red"], "must be a JSON object", "colour"),
        (question(WORDS), "x" * 65537, None, "longer than 65536 bytes", "SELECT"),
    ],
)
async def test_what_is_no_answer_is_refused_with_what_can_be_said(sql, run, refused, asks, word, answers, says, hint):
    await said(sql, run, asks)
    async with refused("LH108", says) as seen:
        await answer(sql, (await asked(sql))["id"], word, answers=answers)
    assert hint in seen.error.hint
    assert (await asked(sql))["status"] == "pending"


@pytest.mark.rule("SW17", "SW18")
async def test_it_is_answered_once_and_nothing_of_it_is_erased(sql, run, login, refused):
    await said(sql, run, permission())
    number = (await asked(sql))["id"]
    await answer(sql, number, "allow", "go on")
    before = await asked(sql)
    assert await answer(sql, number, "proceed_once", "go on") == "answered", "the very same again is harmless"
    for words in (("deny", None), ("allow", None), ("allow", "go on!")):
        async with refused("LH106", f"interaction {number} was answered by"):
            await answer(sql, number, *words)
    other = await login("leasehold_producer")
    async with refused("LH106"):
        await answer(other, number, "allow", "go on")
    await said(sql, run, ("withdrawn", {"id": "p1"}))
    assert await asked(sql) == before


async def test_an_agent_that_waits_no_more_cannot_be_answered(sql, run, refused):
    await said(sql, run, permission())
    await said(sql, run, ("withdrawn", {"id": "p1"}))
    assert await kinds(sql, run["job_id"], "interaction") == ["interaction_opened", "interaction_withdrawn"]
    async with refused("LH107", "does not wait for it any more"):
        await answer(sql, (await asked(sql))["id"], "allow")


async def test_what_is_secret_is_forgotten_when_the_run_has_ended(sql, worker, run):
    await said(sql, run, question(COLOUR, WORDS | {"id": "key", "secret": True}))
    await answer(sql, (await asked(sql))["id"], answers={"colour": "Red", "key": "hunter2"})
    [(_, _, data)] = await inputs(worker, run)
    assert data["answers"] == {"colour": ["Red"], "key": ["hunter2"]}
    await worker.finish(run)
    assert (await response(sql))["answers"] == {"colour": ["Red"], "key": ["***"]}
    assert await sql.fetchval("select count(*) from leasehold.events e where e::text like '%hunter2%'") == 0


async def test_what_is_secret_is_forgotten_whatever_its_question_is_called(sql, worker, run):
    await said(sql, run, question(WORDS | {"id": 1, "secret": True}, WORDS | {"id": "2", "secret": False}))
    await answer(sql, (await asked(sql))["id"], answers={"1": "hunter2", "2": "why not"})
    await worker.finish(run)
    assert (await response(sql))["answers"] == {"1": ["***"], "2": ["why not"]}


POLICIES = [
    ("talker", "bash", "deny"),
    ("talker", "mcp__%", "allow"),
    ("talker", "mcp__prod__%", "deny"),
    (None, "read", "allow"),
    (None, None, "deny"),
]


@pytest.mark.rule("S94")
@pytest.mark.parametrize(
    ("tool", "rules", "decision"),
    [
        ("bash", POLICIES, "deny"),
        ("mcp__docs__find", POLICIES, "allow"),
        ("mcp__prod__drop", POLICIES, "deny"),
        ("read", POLICIES, "allow"),
        ("write", POLICIES, "deny"),
        ("write", POLICIES[:4], None),
        ("write", [("other", None, "allow")], None),
    ],
)
async def test_a_rule_answers_at_once_the_most_exact_one(sql, worker, run, tool, rules, decision, look):
    for agent, pattern, verdict in rules:
        await sql.execute(
            "insert into leasehold.answer_policies (agent, tool, decision, message) values ($1, $2, $3, 'by rule')",
            agent, pattern, verdict,
        )  # fmt: skip
    await said(sql, run, permission(tool=tool))
    row = await asked(sql)
    if decision is None:
        assert (row["status"], (await look(run["job_id"]))["status"]) == ("pending", "waiting")
        return
    assert (row["status"], row["answered_by"], (await look(run["job_id"]))["status"]) == (
        "answered",
        "policy",
        "running",
    )
    said_ = json.loads(row["response"])
    assert (said_["decision"], said_["message"]) == (decision, "by rule")
    assert [kind for kind, *_ in await inputs(worker, run)] == ["answer"]


async def test_a_rule_may_decline_questions_and_never_answers_one(sql, run):
    await sql.execute(
        "insert into leasehold.answer_policies (kind, decision, message) values ('question', 'deny', 'nobody is here')"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(
            "insert into leasehold.answer_policies (agent, kind, decision) values ('x', 'question', 'allow')"
        )
    await said(sql, run, question())
    assert await response(sql) == {"decision": "deny", "message": "nobody is here"}


@pytest.mark.parametrize(
    ("pattern", "taken"), [("C:\\", False), ("C:\\\\\\", False), ("C:\\\\", True), ("100\\%", True)]
)
async def test_a_rule_that_could_only_fail_is_refused(sql, run, pattern, taken):
    statement = "insert into leasehold.answer_policies (tool, decision) values ($1, 'allow')"
    if taken:
        await sql.execute(statement, pattern)
    else:
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute(statement, pattern)
    await said(sql, run, permission(tool="C:"))
    assert (await asked(sql))["status"] == "pending"


async def test_only_an_administrator_writes_rules(login, fixer):
    statement = "insert into leasehold.answer_policies (tool, decision) values ('bash', 'allow')"
    await (await login("leasehold_admin")).execute(statement)
    producer = await login("leasehold_producer")
    assert await producer.fetchval("select count(*) from leasehold.answer_policies") == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await producer.execute(statement)


async def expire(sql, worker):
    rows = await sql.fetch("select * from leasehold.expire_interactions($1, $2)", *worker.me)
    return [(row["interaction"], row["what"]) for row in rows[:-1]], rows[-1]["next_in"]


@pytest.mark.rule("SW17")
@pytest.mark.parametrize("policy", ["deny", "cancel", "ask_again"])
async def test_what_nobody_answers_in_time_goes_as_its_agents_row_says(
    sql, worker, run, clock, look, refused, connect, sane, policy
):
    await sql.execute("update leasehold.agents set answer_timeout = '5 minutes', on_unanswered = $1", policy)
    await said(sql, run, permission())
    number = (await asked(sql))["id"]
    assert await expire(sql, worker) == ([], timedelta(minutes=5))
    await clock.forward(minutes=1)
    await worker.renew([run])
    assert await expire(sql, worker) == ([], timedelta(minutes=4))
    await clock.forward(minutes=4)
    heard = []
    listener = await connect()
    await listener.add_listener("leasehold_interactions", lambda *said: heard.append(said[3]))
    await sql.execute("update leasehold.workers set lease_expires_at = leasehold.clock() + interval '1 hour'")
    ended, due = await expire(sql, worker)
    assert ended == [(number, "asked_again" if policy == "ask_again" else policy)]
    row, job = await asked(sql), await look(run["job_id"])
    if policy == "ask_again":
        await listener.execute("select 1")
        assert (row["status"], row["asked"], row["expires_at"], due) == (
            "pending",
            2,
            clock.now + timedelta(minutes=5),
            timedelta(minutes=5),
        )
        assert heard == [""] and job["status"] == "waiting"
        assert await answer(sql, number, "allow") == "answered"
    else:
        assert (row["status"], row["answered_by"], job["status"], due) == ("expired", "timeout", "running", None)
        assert json.loads(row["response"]) == {
            "decision": "deny",
            "option": "cancel",
            "message": "nobody answered in 5 min",
        }
        assert (job["cancel_requested_at"] is not None) == (policy == "cancel")
        assert [kind for kind, *_ in await inputs(worker, run)] == ["answer"]
        async with refused("LH107", "nobody answered in time"):
            await answer(sql, number, "allow")
        await take(worker, run, ("answer", number))
    await sane()


async def test_an_unanswered_one_of_a_job_that_somebody_holds_is_left(sql, worker, run, clock, connect):
    await sql.execute("update leasehold.agents set answer_timeout = '1 minute'")
    await said(sql, run, permission())
    await clock.forward(minutes=1)
    other = await connect()
    async with other.transaction():
        await other.execute("select from leasehold.jobs where id = $1 for update", run["job_id"])
        assert (await expire(sql, worker))[0] == []
    assert len((await expire(sql, worker))[0]) == 1


async def test_those_that_somebody_holds_fill_no_place_of_those_that_nobody_does(sql, worker, run, job, clock, connect):
    await sql.execute("update leasehold.agents set answer_timeout = '1 minute'")
    await said(sql, run, *(permission(f"p{number}") for number in range(100)))
    await job(agent="talker")
    free = await worker.claim_one()
    await said(sql, free, permission("free"))
    await clock.forward(minutes=1)
    other = await connect()
    async with other.transaction():
        await other.execute("select from leasehold.jobs where id = $1 for update", run["job_id"])
        assert (await expire(sql, worker))[0] == [((await asked(sql, free))["id"], "deny")]
    assert len((await expire(sql, worker))[0]) == 100
