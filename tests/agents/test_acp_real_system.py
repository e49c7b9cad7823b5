"""The real agents behind ACP through the whole system: a row inserted, daemon, keeper, program, tool, human, outcome. `make test-acp`."""

import json
import subprocess

import pytest
from agents.acp_programs import acp_program as program
from agents.record_acp import ASKED
from agents.rows import kinds, until
from agents.test_real_troubles import written

__all__ = ["program"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OPEN = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"
PATIENCE = 120


@pytest.fixture
async def row(program, agent, model, repository, tmp_path):
    """The agent that talks to the scripted model."""
    env = program.configure(tmp_path / "home", model.url("ok"))
    return await agent(
        program.name, "", adapter="acp", command=program.command, env=json.dumps(env), workspace=str(repository)
    )


@pytest.fixture
def asked(sql, eventually):
    async def wait(job):
        await eventually(sql, f"select count(*) from ({OPEN}) o", job, expected=1, within=PATIENCE)
        return await sql.fetchval(OPEN, job)

    return wait


async def said(sql, job):
    wanted = ("session", "tool_call", "permission", "message", "result")
    return [kind for kind in await kinds(sql, job) if kind in wanted]


async def test_a_human_allows_by_sql_a_file_is_changed_and_a_second_job_goes_on_with_the_session(
    host, sql, row, program, insert, ends, asked, repository, model
):
    async with host.daemon():
        first = await insert(row, ASKED, session_key="proof")
        interaction = await asked(first)
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", first) == "waiting"
        await sql.execute("select leasehold.answer($1, 'allow')", interaction)
        await ends(first, "succeeded", within=PATIENCE)
        assert (repository / "proof.txt").read_text() == "hello\n"
        program.pause()
        second = await insert(row, "say: It goes on.", session_key="proof")
        await ends(second, "succeeded", within=PATIENCE)
    assert await said(sql, first) == ["session", "tool_call", "permission", "tool_call", "message", "result"]
    assert await said(sql, second) == ["session", "message", "result"]
    assert "The proof is written." in json.dumps(model.requests[-1][1]), "the model was told what had been said before"


async def test_a_daemon_killed_while_its_agent_asks_goes_on_when_it_is_answered(
    host, sql, row, insert, ends, asked, repository
):
    async with host.daemon() as daemon:
        job = await insert(row, ASKED)
        interaction = await asked(job)
        daemon.kill()
        await daemon.wait()
        await sql.execute("select leasehold.answer($1, 'allow')", interaction)
    async with host.daemon():
        await ends(job, "succeeded", within=PATIENCE)
    assert (repository / "proof.txt").read_text() == "hello\n"
    assert await said(sql, job) == ["session", "tool_call", "permission", "tool_call", "message", "result"]
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1


async def test_a_cancel_while_a_tool_runs_leaves_no_process_behind(host, sql, row, insert, ends, asked, repository):
    script = "ask: setsid -w sh -c 'echo $$ > pid; exec python3 -c \"import time; time.sleep(300)\"'"
    async with host.daemon():
        job = await insert(row, script)
        await sql.execute("select leasehold.answer($1, 'allow')", await asked(job))
        pid = await until(lambda: written(repository / "pid"), "the tool starts")
        await sql.execute("select leasehold.cancel($1)", job)
        await ends(job, "cancelled", within=PATIENCE)
    assert subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode != 0, "the tool is alive"
