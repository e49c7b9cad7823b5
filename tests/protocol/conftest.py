"""Fixtures of the replays: host A on taps, host B plain, agents, jobs, an observer."""

import asyncpg
import pytest
from protocol.stage import open_stage
from protocol.watch import watched
from support.fixtures import agent, ends, host_at, insert

__all__ = ["agent", "ends", "host_at", "insert"]


@pytest.fixture
async def stage(tmp_path, dsn):
    """Host A."""
    async with open_stage(tmp_path / "a", dsn) as one:
        yield one


@pytest.fixture
def other(host_at):
    """Host B: another instance, straight on the wires."""
    return host_at("two")


@pytest.fixture
async def observer(dsn, stage, other):
    """Watches hosts A and B; invariants 1 and 4 must hold to the end of the test."""
    connection = await asyncpg.connect(dsn)
    async with watched(connection, stage.host, other) as watch:
        yield watch
    await connection.close()


RUNS = "select id, outcome, reason, worker_id from leasehold.runs where job_id = $1 order by id"


@pytest.fixture
def runs(sql):
    """How a job's runs have ended, in order."""

    async def get(job):
        return [(row["outcome"], row["reason"]) for row in await sql.fetch(RUNS, job)]

    return get


@pytest.fixture
def started(sql, eventually):
    """Insert was done: wait until its run's process is known; answers the run's id."""

    async def wait(job):
        query = "select status from leasehold.runs where job_id = $1 order by id desc limit 1"
        await eventually(sql, query, job, expected="running")
        return await sql.fetchval("select max(id) from leasehold.runs where job_id = $1", job)

    return wait
