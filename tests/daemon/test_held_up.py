"""Somebody's open transaction holds one job: what its agent says waits for it, and the other agents' words do not."""

from contextlib import asynccontextmanager

import asyncpg
import pytest

pytestmark = pytest.mark.race

TALKER = """
i=0
while [ ! -e {stop} ]; do i=$((i+1)); echo '{{"type": "progress", "text": "'$i'"}}'; echo plain $i; sleep 0.02; done
"""
MANY = "select count(*) from leasehold.events where job_id = $1 and kind = 'progress'"


@pytest.fixture
async def user(dsn):
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@asynccontextmanager
async def rolled_back(connection):
    transaction = connection.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


async def said(sql, job):
    query = "select message from leasehold.events where job_id = $1 and kind = 'progress' order by seq"
    return [int(row["message"]) for row in await sql.fetch(query, job)]


@pytest.mark.parametrize("ask", ["steer(id, 'also the docs')", "cancel(id)"])
async def test_jobs_that_a_user_holds_hold_up_no_other(
    host, sql, agent, insert, ends, eventually, user, written, tmp_path, ask
):
    stop = tmp_path / "stop"
    await agent("talker", TALKER.format(stop=stop))
    async with host.daemon(max_runs=6):
        *held, free = [await insert("talker") for _ in range(6)]
        for job in (*held, free):
            await eventually(sql, f"select ({MANY}) > 10", job, expected=True)
        async with rolled_back(user):
            await user.execute(f"select leasehold.{ask} from unnest($1::bigint[]) as id", held)
            before, behind = await sql.fetchval(MANY, free), [await sql.fetchval(MANY, job) for job in held]
            await eventually(sql, f"select ({MANY}) > $2", free, before + 200, expected=True)
            assert [await sql.fetchval(MANY, job) for job in held] == behind
        stop.touch()
        for job in (*held, free):
            await ends(job, "succeeded")
    for job in (*held, free):
        words = await said(sql, job)
        assert words == list(range(1, len(words) + 1)), "in order, each once"
        assert await written(job) == b"".join(b"plain %d\n" % word for word in words)
    assert [len(await said(sql, job)) > before for job, before in zip(held, behind, strict=True)] == [True] * 5
