"""Fifty agents outlive the daemon, and the next one has them all; what befalls one instance leaves the others of its host alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.host import alive

pytestmark = [pytest.mark.race, pytest.mark.slow]

FLEET = 50
WITHIN = 2.0
QUIET = 0.6
"""Seconds to start Python and import the daemon where nothing else runs."""
PARTS = 3
SPEAKS = """echo $LEASEHOLD_JOB_ID >>{0}/starts
say() {{ i=0; while [ $i -lt 400 ]; do echo "job $LEASEHOLD_JOB_ID part $1 line $i"; i=$((i+1)); done; }}
say 0; until [ -e {0}/alone ]; do sleep 0.5; done
say 1; until [ -e {0}/go ]; do sleep 0.5; done
say 2"""


def words(job):
    return b"".join(b"job %d part %d line %d\n" % (job, part, line) for part in range(PARTS) for line in range(400))


def slowness():
    """How many times slower than a quiet machine this one is just now, by what a bare start of the daemon's modules takes."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import leasehold.main"], check=True)
    return max(1.0, (time.monotonic() - began) / QUIET)


async def test_fifty_agents_survive_sigkill_of_the_daemon_and_are_all_adopted_within_two_seconds(
    host, sql, agent, insert, eventually, tmp_path
):
    await agent("speaker", SPEAKS.format(tmp_path))
    async with host.daemon(max_runs=FLEET) as daemon:
        jobs = [await insert("speaker") for _ in range(FLEET)]
        running = "select count(*) from leasehold.runs where status = 'running'"
        await eventually(sql, running, expected=FLEET, within=60)
        pids = [json.loads(row[0])["pid"] for row in await sql.fetch("select identity from leasehold.runs")]
        daemon.kill()
        await daemon.wait()
    (tmp_path / "alone").touch()
    assert all(alive(pid) for pid in pids)
    limit, began = WITHIN * slowness(), time.monotonic()
    async with host.daemon(max_runs=FLEET):
        seconds = time.monotonic() - began
        assert sum(line["event"] == "run_adopted" for line in host.lines()) == FLEET
        assert all(alive(pid) for pid in pids)
        (tmp_path / "go").touch()
        done = "select count(*) from leasehold.jobs where status = 'succeeded'"
        await eventually(sql, done, expected=FLEET, within=60)
    print(f"{FLEET} agents adopted {seconds:.2f} s after the daemon's start (limit {limit:.1f})")
    assert seconds < limit
    assert sorted((tmp_path / "starts").read_text().split(), key=int) == [str(job) for job in sorted(jobs)]
    assert await sql.fetchval("select count(*) from leasehold.runs") == FLEET
    said = await sql.fetch(
        "select job_id, string_agg(bytes, ''::bytea order by byte_offset) as said from leasehold.output group by 1"
    )
    assert {row["job_id"]: row["said"] for row in said} == {job: words(job) for job in jobs}


@pytest.mark.rule("PW2")
async def test_a_keeper_that_takes_over_leaves_the_agents_of_other_instances_on_its_host_alone(
    host_at, sql, agent, insert, ends, eventually, tmp_path
):
    await agent("waits", f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
    one, two = host_at("one"), host_at("two")
    running = "select count(*) from leasehold.runs where status = 'running'"
    async with one.daemon(queues="one"), two.daemon(queues="two"):
        mine = await insert("waits", queue="one")
        await eventually(sql, running, expected=1)
        theirs = [await insert("waits", queue="two") for _ in range(3)]
        await eventually(sql, running, expected=4)
        (keeper,) = one.keeper_pids()
        os.kill(keeper, signal.SIGKILL)
        await one.said("keeper_back")
        await eventually(sql, "select count(*) from leasehold.runs where job_id = $1", mine, expected=2)
        (tmp_path / "go").touch()
        for job in (mine, *theirs):
            await ends(job, "succeeded")
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id <> $1", mine) == 3
