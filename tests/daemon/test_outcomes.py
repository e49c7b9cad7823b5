"""How a run ends, why, and what becomes of its job."""

import json
from datetime import timedelta
from itertools import pairwise

import pytest

REASON = "select reason from leasehold.jobs where id = $1"


@pytest.mark.rule("AW28")
async def test_a_failing_agent_is_retried_with_backoff_and_then_failed(host, sql, agent, insert, ends, eventually):
    await agent("three", 'echo "attempt $LEASEHOLD_ATTEMPT"; exit 3', retry_backoff=timedelta(seconds=0.3))
    async with host.daemon():
        job = await insert("three", max_attempts=3)
        await ends(job, "failed")
    runs = await sql.fetch(
        "select id, attempt, outcome, reason, exit_code, claimed_at, ended_at from leasehold.runs where job_id = $1 order by id",
        job,
    )
    assert [(run["attempt"], run["outcome"], run["reason"], run["exit_code"]) for run in runs] == [
        (number, "failed", "exit_code", 3) for number in (1, 2, 3)
    ]
    first, second = (after["claimed_at"] - before["ended_at"] for before, after in pairwise(runs))
    assert timedelta(seconds=0.25) < first and timedelta(seconds=0.5) < second
    words = await sql.fetch(
        "select convert_from(bytes, 'UTF8') as said from leasehold.output where job_id = $1 order by run_id", job
    )
    assert [row["said"] for row in words] == [f"attempt {number}\n" for number in (1, 2, 3)]


@pytest.mark.rule("PW17", "PW18", "X24")
@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"command": ["/no/such/program"]}, "spawn_not_found"),
        ({"command": ["no-such-program-anywhere"]}, "spawn_not_found"),
        ({"command": ["/etc/passwd"]}, "spawn_denied"),
        ({"command": ["true"], "workspace": "/no/such/directory"}, "workspace_missing"),
        ({"command": ["sh", "-c", "kill -9 $$"]}, "signal"),
        ({"command": ["sh", "-c", "exit 4"]}, "exit_code"),
        ({"command": ["sh", "-c", "exit 127"]}, "exit_code"),
        ({"command": ["sh", "-c", """echo '{"type":"result","ok":false,"message":"no"}'"""]}, "agent_error"),
    ],
)  # fmt: skip
async def test_every_way_to_fail_has_its_own_reason(host, sql, agent, insert, ends, columns, reason):
    await agent("bad", "", **columns)
    async with host.daemon():
        job = await insert("bad")
        await ends(job, "failed")
    assert await sql.fetchval(REASON, job) == reason
    assert await sql.fetchval("select message from leasehold.jobs where id = $1", job)


@pytest.mark.rule("S104", "X24")
async def test_an_unreadable_workspace_is_its_own_reason(host, sql, agent, insert, ends, tmp_path):
    import os

    if os.geteuid() == 0:
        directory = tmp_path / "file"
        directory.write_text("not a directory")
        expected = "workspace_missing"  # root may enter every directory: what is left to be wrong is its kind
    else:
        directory = tmp_path / "closed"
        directory.mkdir(mode=0)
        expected = "workspace_denied"
    await agent("closed", "true", workspace=str(directory))
    async with host.daemon():
        job = await insert("closed")
        await ends(job, "failed")
    assert await sql.fetchval(REASON, job) == expected


@pytest.mark.race
async def test_a_job_that_kills_its_keeper_each_time_stops_at_the_crash_cap(host, sql, agent, insert, ends):
    await agent("killer", "sleep 0.2; kill -9 $(cut -d' ' -f4 /proc/$$/stat); sleep 60")
    async with host.daemon():
        job = await insert("killer", max_losses=2)
        await ends(job, "failed", within=60)
    assert await sql.fetchval(REASON, job) == "crash_cap"
    runs = await sql.fetch("select outcome, reason from leasehold.runs where job_id = $1", job)
    assert [tuple(run) for run in runs] == [("lost", "keeper_lost")] * 2
    assert await sql.fetchval("select attempts from leasehold.jobs where id = $1", job) == 0
    assert (
        json.loads(await sql.fetchval("select coalesce(result, 'null') from leasehold.jobs where id = $1", job)) is None
    )
