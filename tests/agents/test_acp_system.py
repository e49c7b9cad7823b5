"""An ACP agent that no table knows, added as a row, through the whole system: SQL, daemon, keeper, process."""

import json
import sys
from pathlib import Path

import pytest
from agents.rows import KINDS

PROGRAM = [sys.executable, str(Path(__file__).with_name("acp_agent.py"))]
OPEN = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"


@pytest.fixture
def stranger(agent, tmp_path):
    """The row, and nothing else."""

    async def make(**columns):
        (tmp_path / "work").mkdir(exist_ok=True)
        columns = {"adapter": "acp", "command": PROGRAM, "workspace": str(tmp_path / "work"), **columns}
        return await agent("stranger", "", **columns)

    return make


@pytest.fixture
def asked(sql, eventually):
    """Wait until it asks something."""

    async def wait(job):
        await eventually(sql, f"select count(*) from ({OPEN}) o", job, expected=1)
        return await sql.fetchval(OPEN, job)

    return wait


async def kinds(sql, job):
    wanted = ("session", "tool_call", "permission", "question", "withdrawn", "message", "usage", "turn", "result")
    return [row["kind"] for row in await sql.fetch(KINDS, job) if row["kind"] in wanted]


async def test_a_row_is_enough_and_a_second_job_goes_on_with_its_session(host, sql, stranger, insert, ends):
    name = await stranger()
    async with host.daemon():
        first = await insert(name, "say: Hello", session_key="one")
        await ends(first, "succeeded")
        second = await insert(name, "say: Again", session_key="one")
        await ends(second, "succeeded")
    for job, words in ((first, "Hello "), (second, "Again ")):
        assert json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job))["text"] == words
        assert await kinds(sql, job) == ["session", "message", "usage", "result"]
    before, after = await sql.fetchrow(
        "select session_before, session_after from leasehold.runs where job_id = $1", second
    )
    assert before == after == await sql.fetchval("select session_after from leasehold.runs where job_id = $1", first)


@pytest.mark.parametrize(("answer", "status"), [("allow", "succeeded"), ("deny", "failed")])
async def test_a_human_allows_or_denies_by_sql(host, sql, stranger, insert, ends, asked, tmp_path, answer, status):
    name = await stranger()
    async with host.daemon():
        job = await insert(name, "write: proof.txt\nsay: That was it.", max_attempts=1)
        interaction = await asked(job)
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "waiting"
        await sql.execute("select leasehold.answer($1, $2)", interaction, answer)
        await ends(job, status)
    assert (tmp_path / "work" / "proof.txt").exists() == (answer == "allow")
    assert await kinds(sql, job) == ["session", "tool_call", "permission", "tool_call", "message", "usage", "result"]


async def test_a_form_is_answered_by_sql(host, sql, stranger, insert, ends, asked):
    name = await stranger()
    async with host.daemon():
        job = await insert(name, "form: ")
        answers = json.dumps({"colour": "Blue", "count": "2"})
        await sql.execute("select leasehold.answer($1, answers => $2)", await asked(job), answers)
        await ends(job, "succeeded")
    said = json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job))["text"]
    assert json.loads(said) == {"action": "accept", "content": {"colour": "b", "count": 2}}


async def test_it_is_interrupted_while_it_asks_and_the_question_is_closed(host, sql, stranger, insert, ends, asked):
    name = await stranger()
    async with host.daemon():
        job = await insert(name, "write: proof.txt", max_attempts=1)
        interaction = await asked(job)
        turn = await sql.fetchval("select leasehold.interrupt($1)", job)
        await ends(job, "blocked")
    assert await sql.fetchval("select reason from leasehold.jobs where id = $1", job) == "turn_interrupted"
    assert await sql.fetchval("select status from leasehold.interactions where id = $1", interaction) == "withdrawn"
    assert await sql.fetchval("select state from leasehold.turns where id = $1", turn) == "ended"


async def test_another_prompt_is_said_when_the_first_is_done(host, sql, stranger, insert, ends, asked):
    name = await stranger()
    async with host.daemon():
        job = await insert(name, "write: a\nsay: One")
        interaction = await asked(job)
        turn = await sql.fetchval("select leasehold.prompt($1, 'say: Two')", job)
        await sql.execute("select leasehold.answer($1, 'allow')", interaction)
        await ends(job, "succeeded")
    assert await sql.fetchval("select state from leasehold.turns where id = $1", turn) == "ended"
    said = await sql.fetch(
        "select message from leasehold.events where job_id = $1 and kind = 'message' order by seq", job
    )
    assert [row["message"] for row in said][-2:] == ["One ", "Two "]


@pytest.mark.parametrize("moment", ["asking", "in the second turn"])
async def test_a_daemon_that_is_killed_goes_on_with_the_conversation(
    host, sql, stranger, insert, ends, asked, tmp_path, moment
):
    name = await stranger()
    prompts = (
        ("write: proof.txt\nsay: One", None)
        if moment == "asking"
        else ("write: a\nsay: One", "write: proof.txt\nsay: Two")
    )
    async with host.daemon() as daemon:
        job = await insert(name, prompts[0])
        interaction = await asked(job)
        if prompts[1]:
            await sql.execute("select leasehold.prompt($1, $2)", job, prompts[1])
            await sql.execute("select leasehold.answer($1, 'allow')", interaction)
            interaction = await asked(job)
        daemon.kill()
        await daemon.wait()
        await sql.execute("select leasehold.answer($1, 'allow')", interaction)
    async with host.daemon():
        await ends(job, "succeeded")
    assert (tmp_path / "work" / "proof.txt").read_text() == "hello\n"
    one = ["tool_call", "permission", "tool_call", "message", "usage", "result"]
    expected = ["session", *one] if moment == "asking" else ["session", *one, *one, "turn"]
    assert await kinds(sql, job) == expected
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1


async def test_a_daemon_that_is_killed_before_the_conversation_began_begins_it_where_the_agent_is(
    host, sql, stranger, insert, ends, eventually
):
    slow = ["sh", "-c", 'sleep 3; exec "$@"', "sh", *PROGRAM]
    name = await stranger(command=slow, workspace=None)
    async with host.daemon() as daemon:
        job = await insert(name, "say: Hello")
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded")
    assert await kinds(sql, job) == ["session", "message", "usage", "result"]
