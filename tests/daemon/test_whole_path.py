"""Rows go in, processes run, rows come out."""

import hashlib
import json
from datetime import timedelta

import pytest
from support.forkserver import start_command


@pytest.fixture(autouse=True)
def true_command(host):
    """Here each daemon is started as its unit starts it."""
    host.start = start_command


async def kinds(sql, job):
    rows = await sql.fetch("select seq, kind from leasehold.events where job_id = $1 order by seq", job)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), "events have a gap"
    return [row["kind"] for row in rows]


@pytest.mark.rule("A14", "P9", "P54")
async def test_an_inserted_job_is_run_and_its_words_are_kept(host, sql, agent, insert, ends, written):
    await agent(
        "echo", """cat; echo; echo complaint >&2; echo '{"type": "message", "text": "hello", "n": 42}'; echo after"""
    )
    async with host.daemon():
        job = await insert("echo", "the prompt")
        await ends(job, "succeeded")
    assert await written(job) == b"the prompt\nafter\n"
    assert await written(job, "stderr") == b"complaint\n"
    assert await kinds(sql, job) == ["queued", "started", "spawned", "message", "succeeded"]
    said = await sql.fetchrow("select message, data from leasehold.events where job_id = $1 and kind = 'message'", job)
    assert said["message"] == "hello" and json.loads(said["data"])["n"] == 42


@pytest.mark.rule("P1", "P61")
async def test_the_run_row_knows_size_and_digest_of_the_output(host, sql, agent, insert, ends, written):
    await agent("noise", "head -c 700000 /dev/urandom")
    async with host.daemon():
        job = await insert("noise")
        await ends(job, "succeeded")
    output = json.loads(await sql.fetchval("select output from leasehold.runs where job_id = $1", job))
    stored = await written(job)
    assert output["stdout"] == {
        "bytes": 700000, "sha256": hashlib.sha256(stored).hexdigest(), "kept": [[0, 700000]], "dropped": 0,
    }  # fmt: skip


@pytest.mark.rule("X26")
async def test_any_bytes_arrive_as_they_were(host, sql, agent, insert, ends, written):
    odd = rb"nul \000 bad \377\376 surrogate \355\240\200 end"
    await agent(
        "odd",
        rf"""printf '{odd.decode("latin1")}\n'; printf '{{"type":"message","text":"\\u0000 \\ud800"}}\n'; printf 'no newline'""",
    )
    async with host.daemon():
        job = await insert("odd")
        await ends(job, "succeeded")
    assert await written(job) == b"nul \x00 bad \xff\xfe surrogate \xed\xa0\x80 end\nno newline"
    assert (
        await sql.fetchval("select message from leasehold.events where job_id = $1 and kind = 'message'", job)
        is not None
    )


@pytest.mark.rule("S86")
async def test_a_result_line_becomes_the_jobs_result(host, sql, agent, insert, ends):
    await agent("answer", """echo '{"type": "result", "value": {"sum": 3}}'""")
    async with host.daemon():
        job = await insert("answer")
        await ends(job, "succeeded")
    assert json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job)) == {"sum": 3}


async def test_the_agent_knows_who_it_is_and_nothing_of_the_daemon(host, sql, agent, insert, ends, written):
    await agent("env", "env | sort; echo arg:$0:$1", command=["sh", "-c", "env | sort; echo arg:$0:$1", "{job_id}", "{prompt}"],
                env=json.dumps({"MINE": "yes"}))  # fmt: skip
    async with host.daemon():
        job = await insert("env", "a {job_id} prompt")
        await ends(job, "succeeded")
    said = (await written(job)).decode()
    run = await sql.fetchval("select id from leasehold.runs where job_id = $1", job)
    for line in (
        f"LEASEHOLD_JOB_ID={job}",
        f"LEASEHOLD_RUN_ID={run}",
        "LEASEHOLD_ATTEMPT=1",
        "LEASEHOLD_TENANT=default",
        "MINE=yes",
    ):
        assert line in said.splitlines()
    assert f"arg:{job}:a {{job_id}} prompt" in said.splitlines()
    assert "DATABASE_URL" not in said


async def test_a_job_is_picked_up_at_once_although_the_poll_is_a_minute(host, sql, agent, insert, ends):
    await agent("true", "true")
    async with host.daemon():
        for _ in range(10):
            await ends(await insert("true"), "succeeded", within=5)


async def test_a_job_for_later_starts_when_its_time_has_come(host, sql, agent, insert, ends):
    await agent("true", "true")
    async with host.daemon():
        run_at = await sql.fetchval("select leasehold.clock() + $1::interval", timedelta(seconds=2.5))
        job = await insert("true", run_at=run_at)
        await ends(job, "succeeded", within=10)
    began = await sql.fetchval("select claimed_at from leasehold.runs where job_id = $1", job)
    assert timedelta(0) <= began - run_at < timedelta(seconds=2)


@pytest.mark.rule("SW36", "PW45", "X25")
async def test_total_timeout_stops_an_agent(host, sql, agent, insert, ends):
    await agent("slow", "sleep 60", total_timeout=timedelta(seconds=1))
    async with host.daemon():
        job = await insert("slow")
        await ends(job, "timed_out")
    assert await sql.fetchval("select reason from leasehold.jobs where id = $1", job) == "total"


@pytest.mark.rule("X30")
async def test_one_log_follows_a_job_from_claim_to_outcome(host, sql, agent, insert, ends):
    await agent("true", "true")
    async with host.daemon():
        job = await insert("true")
        await ends(job, "succeeded")
        await host.said("run_settled", job_id=job)
    story = [line for line in host.lines() if line.get("job_id") == job]
    assert [line["event"] for line in story] == ["run_claimed", "run_spawned", "run_exited", "run_settled"]
    for line in story:
        assert {"job_id", "run_id", "attempt", "agent", "tenant", "worker"} <= line.keys()


@pytest.mark.rule("P26", "X28")
async def test_what_an_agent_was_woken_with_is_in_its_environment(host, sql, agent, ends, written):
    await agent("curious", 'printf %s "$LEASEHOLD_CONTEXT"')
    woken = await sql.fetchval(
        "select job_id from leasehold.wake('curious', reason => 'Grüße', payload => '{\"issueId\": 7}')"
    )
    async with host.daemon():
        await ends(woken, "succeeded")
    said = json.loads(await written(woken))
    assert (said["wakeReason"], said["issueId"], said["wakeSource"]) == ("Grüße", "7", "on_demand")
