"""What survives what: the daemon killed, restarted, told to stop; two daemons; an agent that ends while nobody is there."""

import asyncio
import hashlib
import json
import signal

import pytest
from support.host import alive

pytestmark = pytest.mark.race

COUNTER = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.05; done"
LINES = b"".join(b"line %d\n" % number for number in range(60))


async def pid_of(sql, eventually, job):
    await eventually(
        sql, "select status from leasehold.runs where job_id = $1 order by id desc limit 1", job, expected="running"
    )
    return json.loads(
        await sql.fetchval("select identity from leasehold.runs where job_id = $1 order by id desc limit 1", job)
    )["pid"]


async def test_an_agent_survives_sigkill_of_the_daemon_and_is_adopted(
    host, sql, agent, insert, ends, eventually, written
):
    await agent("counter", COUNTER)
    async with host.daemon() as daemon:
        job = await insert("counter")
        pid = await pid_of(sql, eventually, job)
        await eventually(sql, "select count(*) > 0 from leasehold.output where job_id = $1", job, expected=True)
        daemon.kill()
        await daemon.wait()
    assert alive(pid)
    async with host.daemon():
        await host.said("run_adopted", job_id=job)
        assert alive(pid)
        await ends(job, "succeeded")
    assert await written(job) == LINES
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
    output = json.loads(await sql.fetchval("select output from leasehold.runs where job_id = $1", job))
    assert output["stdout"]["bytes"] == len(LINES)
    assert output["stdout"]["sha256"] == hashlib.sha256(LINES).hexdigest()


async def test_an_agent_that_ended_while_no_daemon_was_there_is_settled_with_its_real_outcome(
    host, sql, agent, insert, ends, eventually, written, tmp_path
):
    go = tmp_path / "go"
    await agent(
        "waiter",
        f"""echo before; until [ -e {go} ]; do sleep 0.05; done; echo after; echo '{{"type":"message","text":"done"}}'; exit 7""",
    )
    async with host.daemon() as daemon:
        job = await insert("waiter")
        pid = await pid_of(sql, eventually, job)
        daemon.kill()
        await daemon.wait()
    go.touch()
    while alive(pid):
        await asyncio.sleep(0.02)
    async with host.daemon():
        await ends(job, "failed")
    run = await sql.fetchrow("select outcome, reason, exit_code from leasehold.runs where job_id = $1", job)
    assert tuple(run) == ("failed", "exit_code", 7)
    assert await written(job) == b"before\nafter\n"
    assert await sql.fetchval("select count(*) from leasehold.events where job_id = $1 and kind = 'message'", job) == 1
    assert not (host.directory / "runs" / str(1)).exists()


async def test_events_are_not_doubled_by_an_adoption(host, sql, agent, insert, ends, eventually):
    await agent(
        "talker",
        """i=0; while [ $i -lt 40 ]; do echo '{"type":"message","text":"'$i'"}'; i=$((i+1)); sleep 0.05; done""",
    )
    async with host.daemon() as daemon:
        job = await insert("talker")
        await eventually(
            sql, "select count(*) > 3 from leasehold.events where job_id = $1 and kind = 'message'", job, expected=True
        )
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded")
    said = await sql.fetch(
        "select message from leasehold.events where job_id = $1 and kind = 'message' order by seq", job
    )
    assert [row["message"] for row in said] == [str(number) for number in range(40)]


async def test_detach_leaves_agents_running_for_the_next_daemon(host, sql, agent, insert, ends, eventually, written):
    await agent("counter", COUNTER)
    async with host.daemon(stop_mode="detach") as daemon:
        job = await insert("counter")
        pid = await pid_of(sql, eventually, job)
        daemon.terminate()
        assert await daemon.wait() == 0
    assert alive(pid)
    async with host.daemon():
        await ends(job, "succeeded")
    assert await written(job) == LINES


@pytest.mark.rule("X29")
async def test_drain_waits_for_agents_and_claims_no_more(host, sql, agent, insert, ends, eventually):
    await agent("short", "sleep 1")
    async with host.daemon(stop_mode="drain", max_runs=1) as daemon:
        first = await insert("short")
        await pid_of(sql, eventually, first)
        second = await insert("short")
        daemon.terminate()
        assert await daemon.wait() == 0
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", first) == "succeeded"
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", second) == "queued"
    assert await sql.fetchval("select state from leasehold.workers") == "closed"


async def test_interrupt_requeues_without_using_an_attempt(host, sql, agent, insert, eventually):
    await agent("long", "sleep 300")
    async with host.daemon(stop_mode="drain") as daemon:
        job = await insert("long")
        pid = await pid_of(sql, eventually, job)
        daemon.terminate()
        await host.said("draining")
        daemon.terminate()  # the second signal interrupts
        assert await daemon.wait() == 0
    assert not alive(pid)
    found = await sql.fetchrow("select status, attempts, interruptions from leasehold.jobs where id = $1", job)
    assert tuple(found) == ("queued", 0, 1)
    assert await sql.fetchval("select reason from leasehold.runs where job_id = $1", job) == "daemon_restart"


async def test_a_second_daemon_of_the_same_instance_refuses_to_start(host, host_at, sql):
    async with host.daemon():
        second = await host.launch()
        assert await second.wait() == 1
        assert "another daemon" in host.log_file.read_text()
        elsewhere = host_at("elsewhere")
        elsewhere.instance = host.instance
        third = await elsewhere.launch()
        assert await third.wait() == 1
        assert "another daemon" in elsewhere.log_file.read_text()


@pytest.mark.rule("PW11")
async def test_a_cancel_asked_while_no_daemon_was_there_is_obeyed_by_the_next(
    host, sql, agent, insert, ends, eventually
):
    await agent("long", "sleep 300")
    async with host.daemon() as daemon:
        job = await insert("long")
        pid = await pid_of(sql, eventually, job)
        daemon.kill()
        await daemon.wait()
    assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
    async with host.daemon():
        await ends(job, "cancelled")
    assert not alive(pid)


@pytest.mark.rule("PW5", "X15")
async def test_the_deadline_kills_agents_of_a_stopped_daemon_before_another_runs_the_job(
    host_at, sql, agent, insert, ends, eventually, tmp_path
):
    starts = tmp_path / "starts"
    await agent("long", f"echo start >>{starts}; sleep 4")
    one, two = host_at("one"), host_at("two")
    short = {"lease": "4s", "renewal": "0.8s", "margin": "1.5s", "grace": "0.5s"}
    async with one.daemon(**short) as daemon:
        job = await insert("long")
        pid = await pid_of(sql, eventually, job)
        daemon.send_signal(signal.SIGSTOP)
        try:
            async with two.daemon(**short):
                while alive(pid):
                    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
                    await asyncio.sleep(0.01)
                await ends(job, "succeeded", within=40)
                daemon.send_signal(signal.SIGCONT)
                await one.said("lease_lost", within=20)
                await ends(await insert("long"), "succeeded", within=40)
        finally:
            if daemon.returncode is None:
                daemon.send_signal(signal.SIGCONT)
    assert starts.read_text().count("start") == 3
    runs = await sql.fetch("select outcome, reason from leasehold.runs where job_id = $1 order by id", job)
    assert [run["outcome"] for run in runs] == ["lost", "succeeded"]
    assert await sql.fetchval("select attempts from leasehold.jobs where id = $1", job) == 1
