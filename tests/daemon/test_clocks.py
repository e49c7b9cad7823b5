"""Every clock has its own reason, and says that it is about to strike before it does."""

import json
from datetime import timedelta

import pytest

SECOND = timedelta(seconds=1)


async def told(sql, job):
    run = await sql.fetchrow("select outcome, reason from leasehold.runs where job_id = $1", job)
    kinds = [
        row["kind"] for row in await sql.fetch("select kind from leasehold.events where job_id = $1 order by seq", job)
    ]
    return tuple(run), kinds


@pytest.mark.rule("PW45", "X25")
async def test_a_silent_idle_agent_is_suspected_then_stopped(host, sql, agent, insert, ends):
    await agent("quiet", "echo hello; sleep 300", idle_timeout=SECOND)
    async with host.daemon():
        job = await insert("quiet")
        await ends(job, "timed_out")
    run, kinds = await told(sql, job)
    assert run == ("timed_out", "idle")
    assert kinds.index("suspect") < kinds.index("stopping") < kinds.index("timed_out")
    facts = json.loads(
        await sql.fetchval("select data from leasehold.events where job_id = $1 and kind = 'suspect'", job)
    )
    assert facts["clock"] == "idle"
    assert "sleep" in facts["tree"]


async def test_any_raw_byte_on_either_stream_breaks_the_silence(host, sql, agent, insert, ends):
    await agent("dots", "for i in 1 2 3 4 5 6; do sleep 0.5; printf . >&2; done", idle_timeout=SECOND)
    async with host.daemon():
        await ends(await insert("dots"), "succeeded")


async def test_a_silent_agent_whose_tree_computes_is_given_more_time(host, sql, agent, insert, ends):
    await agent("busy", "timeout 2.5 sh -c 'while :; do :; done'; echo done", idle_timeout=SECOND)
    async with host.daemon():
        job = await insert("busy")
        await ends(job, "succeeded")
    assert "suspect" in (await told(sql, job))[1]


async def test_a_silent_agent_that_computes_for_ever_is_stopped_all_the_same(host, sql, agent, insert, ends):
    await agent("spinner", "while :; do :; done", idle_timeout=SECOND / 2)
    async with host.daemon():
        job = await insert("spinner")
        await ends(job, "timed_out")
    assert (await told(sql, job))[0] == ("timed_out", "idle")


@pytest.mark.rule("X25")
async def test_an_agent_that_never_says_anything_has_a_clock_of_its_own(host, sql, agent, insert, ends):
    await agent("mute", "sleep 300", first_output_timeout=SECOND)
    async with host.daemon():
        job = await insert("mute")
        await ends(job, "timed_out")
    assert (await told(sql, job))[0] == ("timed_out", "first_output")


async def test_silence_while_a_tool_is_at_work_may_last_longer(host, sql, agent, insert, ends):
    script = """echo '{"type":"tool_call","id":"1","name":"make","status":"started"}'; sleep 2
    echo '{"type":"tool_call","id":"1","name":"make","status":"finished"}'; sleep 300"""
    await agent("builder", script, idle_timeout=SECOND / 2, tool_idle_timeout=20 * SECOND)
    async with host.daemon():
        job = await insert("builder")
        await ends(job, "timed_out")
    run, kinds = await told(sql, job)
    assert run == ("timed_out", "idle")
    assert kinds.count("tool_call") == 2


async def test_an_agent_that_lingers_after_its_result_is_stopped_and_its_result_stands(host, sql, agent, insert, ends):
    await agent("lingerer", """echo '{"type":"result","value":{"answer":42}}'; sleep 300""", linger_timeout=SECOND / 2)
    async with host.daemon():
        job = await insert("lingerer")
        await ends(job, "succeeded")
    assert (await told(sql, job))[0] == ("succeeded", "linger")
    assert json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job)) == {"answer": 42}


async def test_a_job_that_waits_too_long_ends_without_a_run(host, sql, agent, insert, ends):
    await agent("later", "true", queue_timeout=SECOND / 10, max_running=0)
    async with host.daemon(renewal="1s", lease="30s", margin="12s"):
        job = await insert("later")
        await ends(job, "timed_out")
    assert await sql.fetchval("select reason from leasehold.jobs where id = $1", job) == "queue"
    assert await sql.fetchval("select count(*) from leasehold.runs") == 0


async def test_a_run_that_is_being_ended_says_so_in_its_row(host, sql, agent, insert, ends, eventually):
    await agent("stubborn", "trap '' TERM; echo deaf; while :; do sleep 0.1; done", stop_grace=3 * SECOND)
    async with host.daemon():
        job = await insert("stubborn")
        await eventually(sql, "select count(*) from leasehold.output where job_id = $1", job, expected=1)
        await sql.execute("select leasehold.cancel($1)", job)
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="stopping")
        await ends(job, "cancelled")
    tree = json.loads(await sql.fetchval("select resources from leasehold.runs where job_id = $1", job))["tree"]
    assert "sh" in tree
