"""The database and the keeper misbehave while jobs flow: nothing is lost, nothing doubled, and the log says what happened."""

import asyncio
import json
import os
import signal

import asyncpg
import pytest
from support.host import alive

pytestmark = pytest.mark.race

OTHERS = "from pg_stat_activity where datname = current_database() and application_name like 'leasehold%'"


async def settled(sql, eventually, jobs):
    await eventually(sql, "select count(*) from leasehold.jobs where status = 'succeeded'", expected=jobs, within=60)
    assert await sql.fetchval("select count(*) from leasehold.runs") == jobs
    gaps = "select count(*) from (select job_id from leasehold.events group by 1 having max(seq) <> count(*)) x"
    assert await sql.fetchval(gaps) == 0


@pytest.mark.rule("G7", "GW24", "X35")
async def test_every_connection_terminated_twice_while_jobs_flow(host, sql, agent, insert, eventually):
    await agent("short", "sleep 0.3; echo done")
    async with host.daemon(renewal="1s", lease="30s", margin="12s"):
        for _ in range(2):
            for _ in range(10):
                await insert("short")
            await eventually(sql, "select count(*) > 0 from leasehold.runs where ended_at is null", expected=True)
            await eventually(sql, f"select count(*) >= 3 {OTHERS}", expected=True)
            await sql.execute(f"select pg_terminate_backend(pid) {OTHERS}")
            await insert("short")
        await settled(sql, eventually, 22)
        await host.said(
            "listen_lost"
        )  # database_away only if a call was under way: an idle connection is just replaced
        await host.said("listen_ready")
    output = await sql.fetchval("select count(*) from leasehold.output where convert_from(bytes, 'UTF8') = E'done\\n'")
    assert output == 22


@pytest.mark.rule("X35")
async def test_a_listen_backend_that_hangs_is_noticed_and_replaced(host, sql, agent, insert, ends, dsn):
    await agent("true", "true")
    if "host=" not in dsn or os.geteuid() != 0:
        pytest.skip("needs the right to stop a backend of the server")
    async with host.daemon(poll="2s"):
        await ends(await insert("true"), "succeeded")
        pid = await sql.fetchval(f"select pid {OTHERS} and application_name like '%listen'")
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                await ends(await insert("true"), "succeeded", within=20)
            await host.said("listen_lost", within=40)
            await host.said("listen_ready", within=40)
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_keeper_that_dies_takes_its_agents_along_and_the_jobs_run_again(
    host, sql, agent, insert, ends, eventually, tmp_path
):
    starts = tmp_path / "starts"
    await agent(
        "long",
        f"echo $$ >>{starts}; setsid sleep 300 & echo $! >>{starts}; test $(wc -l <{starts}) -gt 2 || wait; kill $!",
    )
    async with host.daemon():
        job = await insert("long")
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
        while not starts.exists() or len(starts.read_text().split()) < 2:
            await asyncio.sleep(0.02)
        first = [int(pid) for pid in starts.read_text().split()]
        for pid in host.keeper_pids():
            os.kill(pid, signal.SIGKILL)
        await host.said("keeper_lost")
        await host.said("keeper_back")
        assert not [pid for pid in first if alive(pid)]
        await ends(job, "succeeded")
    runs = await sql.fetch("select outcome, reason from leasehold.runs where job_id = $1 order by id", job)
    assert [tuple(run) for run in runs] == [("lost", "keeper_lost"), ("succeeded", "ok")]


@pytest.mark.rule("PW19")
async def test_a_database_that_is_away_while_agents_end_costs_nothing(host, sql, agent, insert, eventually, server):
    await agent("short", "sleep 0.5; echo done")
    name = await sql.fetchval("select current_database()")
    async with host.daemon(renewal="1s", lease="60s", margin="12s"):
        for _ in range(8):
            await insert("short")
        await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=8)
        pids = [json.loads(row[0])["pid"] for row in await sql.fetch("select identity from leasehold.runs")]
        admin = await asyncpg.connect(server)
        await admin.execute(f"alter database {name} with allow_connections false")
        await sql.execute(f"select pg_terminate_backend(pid) {OTHERS}")
        await host.said("renewal_failed")
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.02)
        await admin.execute(f"alter database {name} with allow_connections true")
        await admin.close()
        await settled(sql, eventually, 8)


async def test_a_keeper_that_hangs_does_not_keep_agents_alive_past_their_deadline(
    host, sql, agent, insert, ends, eventually, tmp_path
):
    starts = tmp_path / "starts"
    await agent(
        "long",
        f"echo $$ >>{starts}; setsid sleep 300 & echo $! >>{starts}; test $(wc -l <{starts}) -gt 2 || wait; kill $!",
    )
    async with host.daemon(lease="7s", renewal="1s", margin="3s", grace="1.5s"):
        job = await insert("long")
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
        while not starts.exists() or len(starts.read_text().split()) < 2:
            await asyncio.sleep(0.02)
        first = [int(pid) for pid in starts.read_text().split()]
        (keeper,) = host.keeper_pids()
        os.kill(keeper, signal.SIGSTOP)
        try:
            await host.said("last_resort_kill", within=20)
            while [pid for pid in first if alive(pid)]:
                await asyncio.sleep(0.02)
            assert (
                await sql.fetchval("select count(*) from leasehold.runs where job_id = $1 and ended_at is null", job)
                == 1
            )
        finally:
            os.kill(keeper, signal.SIGCONT)
        await ends(job, "succeeded", within=40)
    runs = await sql.fetch("select outcome, reason from leasehold.runs where job_id = $1 order by id", job)
    assert [tuple(run) for run in runs] == [("interrupted", "lease_lost"), ("succeeded", "ok")]


async def test_a_breaking_migration_makes_a_running_daemon_leave_with_57_and_its_agents_live_on(
    host, sql, agent, insert, eventually
):
    await agent("long", "sleep 300")
    async with host.daemon(poll="1s") as daemon:
        job = await insert("long")
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
        pid = json.loads(await sql.fetchval("select identity from leasehold.runs"))["pid"]
        await sql.execute(
            "insert into leasehold.migrations (name, checksum, breaking) values ('migrations/9999_later', 'x', true)"
        )
        assert await asyncio.wait_for(daemon.wait(), 30) == 57
        assert alive(pid)
