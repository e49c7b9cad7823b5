"""What happens to the real programs when their provider, their user or the daemon does something else. `make test-agents`."""

import os
import subprocess
from datetime import timedelta

import pytest
from agents.rows import JOB, PROOF, kinds, said, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LEASEHOLD_REAL_AGENTS" not in os.environ, reason="the long part of the real agents: make test-agents"
    ),
]


@pytest.mark.parametrize(
    ("scenario", "status", "reason"), [("401", "failed", "auth"), ("overflow", "failed", "context_overflow")]
)
async def test_what_the_provider_refuses_ends_the_job_with_its_reason(
    host, sql, real, insert, ends, scenario, status, reason
):
    name = await real(scenario)
    async with host.daemon():
        job = await insert(name, PROOF, max_attempts=1)
        await ends(job, status, within=60)
    (done,) = await sql.fetch(JOB, job)
    assert done["reason"] == reason, done


async def test_a_rate_limit_that_passes_is_told_and_forgotten(host, sql, real, insert, ends, repository):
    name = await real("429once")
    async with host.daemon():
        job = await insert(name, PROOF)
        await ends(job, "succeeded", within=60)
    assert len(await said(sql, job, "rate_limited")) == 1
    assert (repository / "proof.txt").exists()


async def test_a_used_up_quota_parks_the_job(host, sql, real, insert, eventually):
    name = await real("quota")
    async with host.daemon():
        job = await insert(name, PROOF)
        run = "select reason from leasehold.runs where job_id = $1 and ended_at is not null"
        await eventually(sql, run, job, expected="quota", within=60)
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "queued"


async def test_a_cancel_while_a_tool_runs_leaves_no_process_behind(
    host, sql, real, insert, ends, eventually, repository
):
    name = await real()
    script = "run: setsid -w sh -c 'echo $$ > pid; exec python3 -c \"import time; time.sleep(300)\"'"
    async with host.daemon():
        job = await insert(name, script)
        await eventually(
            sql,
            "select count(*) > 0 from leasehold.events where job_id = $1 and kind = 'tool_call'",
            job,
            expected=True,
            within=60,
        )
        pid = await until(lambda: written(repository / "pid"), "the tool starts")
        await sql.execute("select leasehold.cancel($1)", job)
        await ends(job, "cancelled", within=60)
    assert subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode != 0, (
        "the tool's child is alive"
    )


@pytest.mark.parametrize("scenario", ["500", "garbage"])
async def test_a_retry_goes_on_with_the_conversation_when_the_provider_is_well_again(
    host, sql, real, insert, ends, eventually, model, repository, scenario
):
    name = await real(scenario, retry_backoff=timedelta(seconds=1))
    async with host.daemon():
        job = await insert(name, PROOF, max_attempts=4)
        ended = "select count(*) > 0 from leasehold.runs where job_id = $1 and ended_at is not null"
        await eventually(sql, ended, job, expected=True, within=60)
        model.becomes[scenario] = "ok"
        await ends(job, "succeeded", within=60)
    runs = await sql.fetch(
        "select reason, session_before, session_after from leasehold.runs where job_id = $1 order by id", job
    )
    assert runs[0]["reason"] == "agent_error"
    assert runs[1]["session_before"] == runs[0]["session_after"] == runs[-1]["session_after"]
    assert (repository / "proof.txt").exists()


async def test_a_daemon_killed_in_the_middle_of_a_turn_loses_and_doubles_nothing(
    host, sql, real, insert, ends, repository
):
    name = await real()
    script = (
        "run: echo one >> proof.txt; python3 -c 'import time; time.sleep(4)'\nrun: echo two >> proof.txt\nsay: Both."
    )
    async with host.daemon() as daemon:
        job = await insert(name, script)
        await until(lambda: written(repository / "proof.txt"), "the tool starts")
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded", within=60)
    assert (repository / "proof.txt").read_text() == "one\ntwo\n"
    heard = [kind for kind in await kinds(sql, job) if kind in ("session", "tool_call", "message", "result")]
    assert heard == ["session", *["tool_call"] * 4, "message", "result"]
    run = await sql.fetchrow("select attempt, output_tokens from leasehold.runs where job_id = $1", job)
    assert (run["attempt"], run["output_tokens"]) == (1, 150)


def written(path):
    return path.exists() and path.read_text().strip()
