"""What happened while nobody could be told is told later: outcome, result and every byte, once (protocol rule 20)."""

import asyncio
import hashlib
import json
import signal

import pytest
from support.host import alive

pytestmark = pytest.mark.race

SHORT = {"lease": "4s", "renewal": "0.8s", "margin": "1.5s", "grace": "0.5s"}
SAYS_NO = """echo before; until [ -e %s ]; do sleep 0.05; done; head -c 300000 /dev/zero | tr '\\0' x; echo
echo '{"type":"result","ok":false,"message":"no luck","value":{"n":7}}'"""
WORDS = b"before\n" + b"x" * 300_000 + b"\n"


@pytest.mark.rule("PW5")
async def test_an_outcome_that_was_given_up_as_lost_arrives_with_result_and_output(
    host_at, sql, agent, insert, ends, eventually, written, tmp_path
):
    go = tmp_path / "go"
    await agent("sayer", SAYS_NO % go)
    one, two = host_at("one"), host_at("two")
    async with one.daemon(**SHORT) as daemon:
        job = await insert("sayer")
        await eventually(sql, "select count(*) from leasehold.output", expected=1)
        pid = json.loads(await sql.fetchval("select identity from leasehold.runs"))["pid"]
        daemon.send_signal(signal.SIGSTOP)
        go.touch()
        while alive(pid):
            await asyncio.sleep(0.02)
        async with two.daemon(**SHORT, queues="elsewhere"):
            await eventually(sql, "select outcome from leasehold.runs", expected="lost", within=40)
        assert await sql.fetchval("select status from leasehold.jobs") == "queued"
        daemon.send_signal(signal.SIGCONT)
        await ends(job, "failed", within=10)
        await one.said("run_late", outcome="failed", reason="agent_error")
    late = json.loads(await sql.fetchval("select late_outcome from leasehold.runs where job_id = $1", job))
    assert (late["outcome"], late["reason"], late["message"], late["result"]) == (
        "failed",
        "agent_error",
        "no luck",
        {"n": 7},
    )
    assert await written(job) == WORDS
    output = json.loads(await sql.fetchval("select output from leasehold.runs where job_id = $1", job))
    assert output["stdout"]["sha256"] == hashlib.sha256(WORDS).hexdigest()
    assert await sql.fetchval("select count(*) from leasehold.runs") == 1


@pytest.mark.rule("SW36", "X25")
async def test_a_late_outcome_knows_the_limit_of_output_too(host_at, sql, agent, insert, ends, eventually, tmp_path):
    go = tmp_path / "go"
    await agent("sayer", SAYS_NO % go, output_limit=100_000)
    one, two = host_at("one"), host_at("two")
    async with one.daemon(**SHORT) as daemon:
        job = await insert("sayer")
        await eventually(sql, "select count(*) from leasehold.output", expected=1)
        pid = json.loads(await sql.fetchval("select identity from leasehold.runs"))["pid"]
        daemon.kill()
        await daemon.wait()
    go.touch()
    while alive(pid):
        await asyncio.sleep(0.02)
    async with two.daemon(**SHORT, queues="elsewhere"):
        await eventually(sql, "select outcome from leasehold.runs", expected="lost", within=40)
    async with one.daemon(**SHORT, queues="elsewhere"):
        await ends(job, "failed", within=10)
    assert (
        await sql.fetchval("select late_outcome ->> 'reason' from leasehold.runs where job_id = $1", job)
        == "output_limit"
    )
