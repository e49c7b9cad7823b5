"""The real programs through the whole system: a row inserted, daemon, keeper, CLI, tool call, repository, outcome, events."""

import json
import subprocess

import pytest

PROOF = "run: echo hello > proof.txt\nsay: The proof is written."
JOB = "select status, reason, message, result from leasehold.jobs where id = $1"
KINDS = "select kind from leasehold.events where job_id = $1 and run_id is not null order by seq"
SAID = "select data from leasehold.events where job_id = $1 and kind = $2 order by seq"

pytestmark = pytest.mark.slow


async def kinds(sql, job):
    return [row["kind"] for row in await sql.fetch(KINDS, job)]


async def said(sql, job, kind):
    return [json.loads(row["data"]) for row in await sql.fetch(SAID, job, kind)]


async def test_a_row_becomes_a_changed_file_and_a_second_job_of_its_session_goes_on(
    host, sql, real, insert, ends, repository, model
):
    name = await real()
    async with host.daemon():
        first = await insert(name, PROOF, session_key="proof")
        await ends(first, "succeeded", within=60)
        assert (repository / "proof.txt").read_text() == "hello\n"
        status = subprocess.run(
            ["git", "-C", repository, "status", "--short"], capture_output=True, text=True, check=True
        )
        assert status.stdout == "?? proof.txt\n"
        second = await insert(name, "run: cat proof.txt\nsay: It says hello.", session_key="proof")
        await ends(second, "succeeded", within=60)
    for job, words in ((first, "The proof is written."), (second, "It says hello.")):
        (done,) = await sql.fetch(JOB, job)
        assert json.loads(done["result"])["text"] == words
        heard = [
            kind for kind in await kinds(sql, job) if kind in ("session", "tool_call", "message", "usage", "result")
        ]
        assert heard == ["session", "tool_call", "tool_call", "message", "usage", "result"]
        run = await sql.fetchrow(
            "select input_tokens, output_tokens, cached_tokens from leasehold.runs where job_id = $1", job
        )
        assert (run["output_tokens"], run["cached_tokens"]) == (100, 800)
    sessions = await sql.fetch("select session_before, session_after from leasehold.runs order by id")
    assert sessions[0]["session_after"] == sessions[1]["session_before"] == sessions[1]["session_after"]
    assert "The proof is written." in json.dumps(model.requests[-1][1]), "the model was told what had been said before"


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
    script = "run: setsid sh -c 'echo $$ > pid; exec python3 -c \"import time; time.sleep(300)\"'"
    async with host.daemon():
        job = await insert(name, script)
        await eventually(
            sql,
            "select count(*) > 0 from leasehold.events where job_id = $1 and kind = 'tool_call'",
            job,
            expected=True,
            within=60,
        )
        pid = await wait_for_pid(repository / "pid")
        await sql.execute("select leasehold.cancel($1)", job)
        await ends(job, "cancelled", within=60)
    assert subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode != 0, (
        "the tool's child is alive"
    )


async def wait_for_pid(path):
    import asyncio

    for _ in range(1000):
        if path.exists() and path.read_text().strip():
            return path.read_text().strip()
        await asyncio.sleep(0.02)
    raise AssertionError("the tool did not start")
