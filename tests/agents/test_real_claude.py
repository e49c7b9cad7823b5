"""A conversation with the real Claude Code through the whole system: what is said to it by SQL, what it asks, daemons that die."""

import asyncio
import json
import os
import subprocess

import pytest
from agents.cases import ASK
from agents.programs import CLAUDE
from agents.rows import JOB, PROOF, kinds, said, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LEASEHOLD_REAL_AGENTS" not in os.environ, reason="the long part of the real agents: make test-agents"
    ),
    pytest.mark.parametrize("program", [CLAUDE], indirect=True, ids=["claude"]),
]
WAITS = "import os, time; [time.sleep(0.1) for _ in iter(lambda: os.path.exists('go'), True)]"
WORKS = f'run: echo $$ > pid; python3 -c "{WAITS}"\nrun: echo second > proof.txt\nsay: As it was planned.'
"""Its first tool ends when somebody makes the file `go`."""
OPEN = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"
HEARD = "select count(*) > 0 from leasehold.turns where job_id = $1 and state = 'acknowledged'"
TURNS = "select kind, state, outcome from leasehold.turns where job_id = $1 order by seq"
USED = "select count(*), sum(u.output_tokens) from leasehold.usage u join leasehold.runs r on r.id = u.run_id where r.job_id = $1"


@pytest.fixture
def asks(real, sql):
    """Whose options allow nothing."""

    async def make():
        name = await real()
        await sql.execute("update leasehold.agents set command = command[1:1] where name = $1", name)
        return name

    return make


async def asked(sql, job):
    for _ in range(1500):
        if (found := await sql.fetchval(OPEN, job)) is not None:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("nobody was asked")


async def works(repository):
    """The shell of its tool."""
    path = repository / "pid"
    return await until(lambda: path.exists() and path.read_text().strip(), "the tool starts")


async def goes_on(sql, job, eventually, repository):
    """When it has been told what there is to tell."""
    await eventually(sql, HEARD, job, expected=True, within=60)
    (repository / "go").touch()


def lives(pid):
    return subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode == 0


async def turns(sql, job):
    return [tuple(row) for row in await sql.fetch(TURNS, job)]


@pytest.mark.parametrize(("answer", "there"), [("allow", True), ("deny", False)])
async def test_it_asks_for_permission_and_does_as_it_is_answered(
    host, sql, asks, insert, ends, repository, answer, there
):
    name = await asks()
    async with host.daemon():
        job = await insert(name, PROOF)
        question = await asked(sql, job)
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "waiting"
        assert not (repository / "proof.txt").exists()
        await sql.execute("select leasehold.answer($1, $2)", question, answer)
        await ends(job, "succeeded", within=60)
    assert (repository / "proof.txt").exists() is there
    assert [each["ok"] for each in await said(sql, job, "tool_call") if each["status"] == "finished"] == [there]


async def test_its_questions_are_answered(host, sql, asks, insert, ends, model):
    name = await asks()
    async with host.daemon():
        job = await insert(name, ASK)
        answers = json.dumps({"1": "Tea", "2": ["Milk", "Salt"]})
        await sql.execute("select leasehold.answer($1, answers => $2)", await asked(sql, job), answers)
        await ends(job, "succeeded", within=60)
    assert '\\"What goes with it?\\"=\\"Milk, Salt\\"' in json.dumps(model.requests[-1][1])


async def test_words_that_come_while_a_tool_works_are_heard_in_that_turn(
    host, sql, real, insert, ends, eventually, repository
):
    name = await real()
    async with host.daemon():
        job = await insert(name, WORKS)
        await works(repository)
        await sql.execute("select leasehold.steer($1, 'say: Steered.')", job)
        await goes_on(sql, job, eventually, repository)
        await ends(job, "succeeded", within=60)
    (done,) = await sql.fetch(JOB, job)
    assert json.loads(done["result"])["text"] == "Steered."
    assert not (repository / "proof.txt").exists()
    assert await turns(sql, job) == [("steer", "ended", "done")]
    assert len(await said(sql, job, "result")) == 1


async def test_a_prompt_is_heard_behind_the_turn_in_the_same_run(host, sql, real, insert, ends, eventually, repository):
    name = await real()
    async with host.daemon():
        job = await insert(name, WORKS)
        await works(repository)
        await sql.execute("select leasehold.prompt($1, 'say: Prompted.')", job)
        await goes_on(sql, job, eventually, repository)
        await ends(job, "succeeded", within=60)
    (done,) = await sql.fetch(JOB, job)
    assert json.loads(done["result"])["text"] == "Prompted."
    assert (repository / "proof.txt").exists()
    assert await turns(sql, job) == [("prompt", "ended", "done")]
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
    assert tuple(await sql.fetchrow(USED, job)) == (2, 200)


async def test_an_interrupt_ends_the_tool_and_the_turn_and_the_job_is_blocked(
    host, sql, real, insert, ends, repository
):
    name = await real()
    async with host.daemon():
        job = await insert(name, WORKS)
        pid = await works(repository)
        await sql.execute("select leasehold.interrupt($1)", job)
        await ends(job, "blocked", within=60)
        assert not lives(pid)
    (done,) = await sql.fetch(JOB, job)
    assert done["reason"] == "turn_interrupted"
    assert await turns(sql, job) == [("interrupt", "ended", "done")]


async def test_what_is_said_behind_an_interrupt_goes_on_in_the_same_run(host, sql, real, insert, ends, repository):
    name = await real()
    async with host.daemon():
        job = await insert(name, WORKS)
        pid = await works(repository)
        await sql.execute("select leasehold.interrupt($1), leasehold.steer($1, 'say: Rather this.')", job)
        await ends(job, "succeeded", within=60)
        assert not lives(pid)
    (done,) = await sql.fetch(JOB, job)
    assert json.loads(done["result"])["text"] == "Rather this."
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1


async def test_a_daemon_killed_while_a_human_is_asked_goes_on_with_the_answer(
    host, sql, asks, insert, ends, repository
):
    name = await asks()
    async with host.daemon() as daemon:
        job = await insert(name, PROOF)
        question = await asked(sql, job)
        daemon.kill()
        await daemon.wait()
    await sql.execute("select leasehold.answer($1, 'allow')", question)
    async with host.daemon():
        await ends(job, "succeeded", within=60)
    assert (repository / "proof.txt").read_text() == "hello\n"
    assert await sql.fetchval("select count(*) from leasehold.interactions where job_id = $1", job) == 1
    heard = [
        kind
        for kind in await kinds(sql, job)
        if kind in ("session", "tool_call", "permission", "message", "usage", "result")
    ]
    assert heard == ["session", "tool_call", "permission", "tool_call", "message", "usage", "result"]
    assert await sql.fetchval("select max(attempt) from leasehold.runs where job_id = $1", job) == 1


async def test_a_daemon_killed_in_a_turn_that_is_steered_says_it_once(
    host, sql, real, insert, ends, eventually, repository, model
):
    name = await real()
    async with host.daemon() as daemon:
        job = await insert(name, WORKS)
        await works(repository)
        await sql.execute("select leasehold.steer($1, 'run: echo steered >> proof.txt')", job)
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await goes_on(sql, job, eventually, repository)
        await ends(job, "succeeded", within=60)
    assert (repository / "proof.txt").read_text() == "steered\n"
    assert await turns(sql, job) == [("steer", "ended", "done")]
    assert json.dumps(model.requests[-1][1]).count("run: echo steered") == 1
