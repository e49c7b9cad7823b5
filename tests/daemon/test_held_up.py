"""Somebody's open transaction holds one job: what its agent says waits for it, and the other agents' words do not."""

import asyncpg
import pytest

pytestmark = pytest.mark.race

TALKER = """
i=0
while [ ! -e {stop} ]; do i=$((i+1)); echo '{{"type": "progress", "text": "'$i'"}}'; sleep 0.02; done
"""
MANY = "select count(*) from leasehold.events where job_id = $1 and kind = 'progress'"


@pytest.fixture
async def user(dsn):
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def said(sql, job):
    query = "select message from leasehold.events where job_id = $1 and kind = 'progress' order by seq"
    return [int(row["message"]) for row in await sql.fetch(query, job)]


async def test_one_job_held_by_a_user_holds_up_no_other(host, sql, agent, insert, ends, eventually, user, tmp_path):
    stop = tmp_path / "stop"
    await agent("talker", TALKER.format(stop=stop))
    async with host.daemon():
        held, free = await insert("talker"), await insert("talker")
        for job in (held, free):
            await eventually(sql, f"select ({MANY}) > 10", job, expected=True)
        async with user.transaction():
            await user.execute("select leasehold.steer($1, 'also the docs')", held)
            before, behind = await sql.fetchval(MANY, free), await sql.fetchval(MANY, held)
            await eventually(sql, f"select ({MANY}) > $2", free, before + 200, expected=True)
            assert await sql.fetchval(MANY, held) == behind
        stop.touch()
        await ends(held, "succeeded")
        await ends(free, "succeeded")
    for job in (held, free):
        words = await said(sql, job)
        assert words == list(range(1, len(words) + 1)), "in order, each once"
    assert len(await said(sql, held)) > behind
