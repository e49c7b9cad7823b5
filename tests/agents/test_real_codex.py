"""Conversations with the real Codex through the whole system: what somebody says in SQL reaches it, what it asks becomes a row."""

import json
import os
import subprocess

import pytest
from agents.programs import CODEX_APP
from agents.rows import JOB, kinds, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LEASEHOLD_REAL_AGENTS" not in os.environ, reason="the long part of the real agents: make test-agents"
    ),
    pytest.mark.parametrize("program", [CODEX_APP], indirect=True, ids=lambda program: program.adapter),
]
NAPS = "run: echo one >> proof.txt; python3 -c 'import time; time.sleep(4)'\nrun: echo two >> proof.txt\nsay: Both."
SLEEPS = "run: (sleep 61 & echo $! >> pids); setsid sh -c 'echo $$ >> pids; exec sleep 62' & echo $$ >> pids; sleep 63\nsay: It has slept."
ASKS = "ask: echo asked > asked.txt\nsay: Asked."
TURNS = "select kind, state, outcome, follow_up_job from leasehold.turns where job_id = $1 order by seq"
ASKED = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"
STATUS = "select status from leasehold.jobs where id = $1"
QUESTION = {"questions": [{"id": "drink", "header": "Drink", "question": "What to drink?", "options": [
    {"label": "Tea", "description": "Hot."}, {"label": "Water", "description": "Cold."},
]}]}  # fmt: skip


@pytest.fixture
def asked(sql, eventually):
    """Wait until the job waits for somebody; the interaction's id."""

    async def wait(job):
        await eventually(sql, STATUS, job, expected="waiting", within=60)
        return await sql.fetchval(ASKED, job)

    return wait


async def turns(sql, job):
    return [tuple(row) for row in await sql.fetch(TURNS, job)]


async def outcome(sql, job):
    (done,) = await sql.fetch(JOB, job)
    return done["status"], done["reason"], json.loads(done["result"] or "{}").get("text")


def alive(pids):
    return [pid for pid in pids if subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode == 0]


async def test_a_steer_reaches_the_turn_at_work(host, sql, real, insert, ends, repository):
    name = await real()
    async with host.daemon():
        job = await insert(name, NAPS)
        await until((repository / "proof.txt").exists, "the tool starts")
        await sql.fetchval("select leasehold.steer($1, 'say: Steered.')", job)
        await ends(job, "succeeded", within=60)
    assert await outcome(sql, job) == ("succeeded", "ok", "Steered.")
    assert (repository / "proof.txt").read_text() == "one\n"
    assert await turns(sql, job) == [("steer", "ended", "done", None)]


async def test_a_prompt_waits_for_the_turn_at_work_and_is_one_of_the_same_conversation(
    host, sql, real, insert, ends, repository, model
):
    name = await real()
    async with host.daemon():
        job = await insert(name, NAPS)
        await until((repository / "proof.txt").exists, "the tool starts")
        await sql.fetchval("select leasehold.prompt($1, 'run: echo three >> proof.txt\nsay: All.')", job)
        await ends(job, "succeeded", within=60)
    assert await outcome(sql, job) == ("succeeded", "ok", "All.")
    assert (repository / "proof.txt").read_text() == "one\ntwo\nthree\n"
    assert await turns(sql, job) == [("prompt", "ended", "done", None)]
    assert "Both." in json.dumps(model.requests[-1][1])


async def test_an_interrupt_ends_the_turn_and_all_that_its_tools_have_begun(host, sql, real, insert, ends, repository):
    name = await real()
    async with host.daemon():
        job = await insert(name, SLEEPS)
        pids = await until(lambda: three(repository / "pids"), "the tool and its children start")
        await sql.fetchval("select leasehold.interrupt($1)", job)
        await ends(job, "blocked", within=60)
    assert (await outcome(sql, job))[:2] == ("blocked", "turn_interrupted")
    assert await turns(sql, job) == [("interrupt", "ended", "done", None)]
    assert alive(pids) == []


def three(path):
    found = path.read_text().split() if path.exists() else []
    return found if len(found) == 3 else None


@pytest.mark.parametrize(("answer", "written"), [("allow", True), ("deny", False)])
async def test_what_somebody_is_asked_is_done_or_not(
    host, sql, real, insert, ends, asked, program, repository, answer, written
):
    name = await real(options=program.asking)
    async with host.daemon():
        job = await insert(name, ASKS)
        interaction = await asked(job)
        assert not (repository / "asked.txt").exists()
        await sql.fetchval("select leasehold.answer($1, $2)", interaction, answer)
        await ends(job, "succeeded", within=60)
    assert await outcome(sql, job) == ("succeeded", "ok", "Asked.")
    assert (repository / "asked.txt").exists() == written
    row = await sql.fetchrow(
        "select status, delivered_at, prompt from leasehold.interactions where id = $1", interaction
    )
    assert row["status"] == "answered"
    assert row["delivered_at"] is not None
    assert "echo asked" in row["prompt"]


async def test_a_question_is_answered_in_sql(host, sql, real, insert, ends, asked, model):
    name = await real()
    async with host.daemon():
        job = await insert(name, f"call: request_user_input {json.dumps(QUESTION)}\nsay: Thank you.")
        interaction = await asked(job)
        await sql.fetchval("select leasehold.answer($1, 'Tea')", interaction)
        await ends(job, "succeeded", within=60)
    assert "Tea" in json.dumps(model.requests[-1][1]["input"][-1])


async def test_a_daemon_that_is_killed_while_somebody_is_asked_asks_once_and_goes_on(
    host, sql, real, insert, ends, eventually, asked, program, repository
):
    name = await real(options=program.asking)
    async with host.daemon() as daemon:
        job = await insert(name, ASKS)
        interaction = await asked(job)
        daemon.kill()
        await daemon.wait()
    await sql.fetchval("select leasehold.answer($1, 'allow')", interaction)
    async with host.daemon():
        await ends(job, "succeeded", within=60)
    assert (repository / "asked.txt").read_text() == "asked\n"
    assert await sql.fetchval("select count(*) from leasehold.interactions where job_id = $1", job) == 1
    heard = [kind for kind in await kinds(sql, job) if kind in ("session", "permission", "message", "result")]
    assert heard == ["session", "permission", "message", "result"]


async def test_a_daemon_that_is_killed_after_a_steer_says_it_once(host, sql, real, insert, ends, repository, model):
    name = await real()
    async with host.daemon() as daemon:
        job = await insert(name, NAPS)
        await until((repository / "proof.txt").exists, "the tool starts")
        await sql.fetchval("select leasehold.steer($1, 'say: Steered.')", job)
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded", within=60)
    assert await outcome(sql, job) == ("succeeded", "ok", "Steered.")
    said = [item for item in model.requests[-1][1]["input"] if "say: Steered." in json.dumps(item)]
    assert len(said) == 1


async def test_what_a_row_allows_now_counts_also_in_a_conversation_that_could_do_more(
    host, sql, real, insert, ends, program, repository
):
    name = await real()
    async with host.daemon():
        first = await insert(name, "run: echo one > one.txt\nsay: One.", session_key="k")
        await ends(first, "succeeded", within=60)
        command = [str(program.path), "-c", "sandbox_mode=read-only", "-c", "approval_policy=never"]
        await sql.execute("update leasehold.agents set command = $2 where name = $1", name, command)
        second = await insert(name, "run: echo two > two.txt\nsay: Two.", session_key="k")
        await ends(second, "succeeded", within=60)
    assert (repository / "one.txt").exists()
    assert not (repository / "two.txt").exists()
    sessions = await sql.fetch("select session_before, session_after from leasehold.runs order by id")
    assert sessions[0]["session_after"] == sessions[1]["session_before"] == sessions[1]["session_after"]
