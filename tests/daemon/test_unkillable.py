"""A tree that no kill ends, seen through the whole daemon: said everywhere, its place stays taken, its end is heard of."""

import asyncio
import json
import os
import shutil
import signal
from datetime import timedelta
from urllib.request import urlopen

import pytest
from support.host import alive
from support.keeper import KeeperProcess, until
from support.repository import made

pytestmark = pytest.mark.race

OTHER_UID = 54321
SCRIPT = f"""setpriv --reuid={OTHER_UID} --regid={OTHER_UID} --clear-groups sleep 300 & echo $!; wait"""
UNKILLABLE = "select unkillable_since is not null from leasehold.runs where job_id = $1"


@pytest.fixture
def keeper(host):
    """A keeper that may not signal other users' processes: what became one of those survives every kill of its own."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("a process that the keeper may not signal can only be made by root, with setpriv")
    prefix = ("setpriv", "--inh-caps=-kill", "--bounding-set=-kill", "--")
    process = KeeperProcess(host.directory, "subreaper", prefix=prefix)
    process.start("--unkillable-after", "0.3")
    yield process
    process.close()


@pytest.fixture
def stubborn(keeper, sql, agent, insert, eventually):
    """Start a job whose tree does not die, and have it cancelled or time out; its id, and the pid of what stays."""
    left = []

    async def start(*, cancel=True, place=None, **columns):
        clocks = {} if cancel else {"total_timeout": timedelta(seconds=1)}
        await agent("stubborn", SCRIPT, stop_grace=timedelta(seconds=0.2), **clocks, **(place or {}))
        job = await insert("stubborn", **columns)
        await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
        run = await sql.fetchval("select id from leasehold.runs where job_id = $1", job)
        said = await asyncio.to_thread(until, lambda: keeper.path(run, "stdout").read_text().strip(), "a pid")
        left.append(int(said))
        await asyncio.to_thread(until, lambda: os.stat(f"/proc/{said}").st_uid == OTHER_UID, "another user's process")
        if cancel:
            await sql.execute("select leasehold.cancel($1)", job)
        await eventually(sql, UNKILLABLE, job, expected=True)
        return job, left[-1]

    yield start
    for pid in left:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


async def counted(host, **expected):
    """Wait until the daemon's metrics say so."""
    port = (await host.said("metrics_ready"))["port"]
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        page = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
        numbers = dict(line.split(" ") for line in page.splitlines() if line.startswith("leasehold_"))
        if expected == (found := {name: float(numbers[f"leasehold_{name}"]) for name in expected}):
            return
        assert asyncio.get_running_loop().time() < deadline, f"still {found}, not {expected}"
        await asyncio.sleep(0.05)


async def test_it_is_said_in_row_event_log_and_metrics_and_keeps_its_place_until_it_is_gone(
    host, sql, stubborn, agent, insert, ends, eventually
):
    await agent("next", "echo my turn")
    async with host.daemon(max_runs=1, metrics_address="127.0.0.1:0"):
        job, pid = await stubborn()
        line = await host.said("run_unkillable", job_id=job)
        assert line["level"] == "error" and [(each["pid"], each["name"]) for each in line["processes"]] == [
            (pid, "sleep")
        ]
        event = await sql.fetchrow(
            "select level, data from leasehold.events where job_id = $1 and kind = 'unkillable'", job
        )
        assert event["level"] == "error" and json.loads(event["data"])["processes"][0]["pid"] == pid
        await counted(host, unkillable_runs=1, places_free=0)
        waiting = await insert("next")
        assert await sql.fetchval("select status from leasehold.runs where job_id = $1", job) == "stopping"
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", waiting) == "queued"
        assert alive(pid)

        os.kill(pid, signal.SIGKILL)
        await ends(job, "cancelled")
        await ends(waiting, "succeeded")
        await counted(host, unkillable_runs=0, places_free=1)
    said = [line for line in host.lines() if line["event"] == "run_unkillable"]
    assert len(said) == 1


async def test_the_others_are_served_meanwhile(host, stubborn, agent, insert, ends):
    await agent("next", "echo my turn")
    async with host.daemon(max_runs=2):
        await stubborn()
        await ends(await insert("next"), "succeeded")


async def test_a_daemon_does_not_wait_for_it_and_the_next_one_takes_it_up_as_what_it_is(host, sql, stubborn, ends):
    async with host.daemon() as first:
        job, pid = await stubborn()
        first.terminate()
        assert await asyncio.wait_for(first.wait(), 15) == 0
    assert alive(pid)
    async with host.daemon(metrics_address="127.0.0.1:0", max_runs=2):
        await host.said("run_unkillable", job_id=job)
        await counted(host, unkillable_runs=1, places_free=1)
        os.kill(pid, signal.SIGKILL)
        await ends(job, "cancelled")
        await counted(host, unkillable_runs=0, places_free=2)
    events = await sql.fetch("select kind from leasehold.events where job_id = $1 and kind = 'unkillable'", job)
    assert len(events) == 1


async def test_when_its_daemon_is_lost_too_its_job_fails_and_is_never_run_beside_it(
    host, host_at, sql, stubborn, ends, eventually
):
    short = {"lease": "7s", "renewal": "1s", "margin": "3s", "grace": "1.5s"}
    async with host.daemon(**short, metrics_address="127.0.0.1:0") as daemon:
        job, pid = await stubborn(max_attempts=3, cancel=False)
        daemon.send_signal(signal.SIGSTOP)
        try:
            async with host_at("two").daemon(**short):
                await ends(job, "failed", within=40)
            assert alive(pid)
            assert await sql.fetchval("select reason from leasehold.jobs where id = $1", job) == "unkillable"
        finally:
            daemon.send_signal(signal.SIGCONT)
        await host.said("lease_lost", within=20)
        await host.said("runs_adopted", strangers=1)
        await counted(host, unkillable_runs=1, places_free=7)  # not ours any more, and in our way all the same
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        await eventually(
            sql, "select count(*) from leasehold.events where job_id = $1 and kind = 'late_outcome'", job, expected=1
        )
        await counted(host, unkillable_runs=0, places_free=8)
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
    assert not [line for line in host.lines() if line["event"] == "run_crashed"]


async def test_nobody_comes_into_its_worktree_before_it_is_gone(
    host, sql, stubborn, insert, eventually, ends, tmp_path
):
    repository = made(tmp_path / "origin")
    async with host.daemon():
        job, pid = await stubborn(place={"repository": str(repository.path)}, branch="shared")
        assert await sql.fetchval("select status from leasehold.workspaces") == "quarantined"
        second = await insert("stubborn", branch="shared")
        await eventually(sql, "select reason from leasehold.jobs where id = $1", second, expected="workspace_busy")
        assert "quarantined" in await sql.fetchval("select message from leasehold.jobs where id = $1", second)
        await sql.execute("select leasehold.cancel($1)", second)
        os.kill(pid, signal.SIGKILL)
        await ends(job, "cancelled")
        assert await sql.fetchval("select status from leasehold.workspaces") == "free"
