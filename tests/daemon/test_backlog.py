"""What is queued while a daemon is away, or when it dies, is simply run by the next one; nothing else has to happen."""

import pytest

pytestmark = pytest.mark.race


@pytest.mark.rule("PW1", "PW35")
async def test_a_backlog_outlives_every_daemon_and_starts_at_once_with_the_next(
    host, sql, agent, insert, ends, eventually
):
    await agent("short", "sleep 0.3")
    jobs = [await insert("short") for _ in range(6)]
    done = "select count(*) from leasehold.jobs where status = 'succeeded'"
    async with host.daemon(max_runs=1) as daemon:  # its poll is a minute: it is not what starts them
        await eventually(sql, done, expected=2)
        daemon.kill()
        await daemon.wait()
    assert await sql.fetchval(done) < 6
    async with host.daemon(max_runs=1):
        await ends(jobs[-1], "succeeded", within=20)
    assert await sql.fetchval(done) == 6
    assert await sql.fetchval("select max(attempts) from leasehold.jobs") == 1
