"""What the tests with a crowd share: their end."""

import asyncio


async def drained(sql, tasks, patience=10):
    """Wait until every job has ended; whoever of the crowd fails, or nothing ending for `patience` seconds, fails the test."""
    now = asyncio.get_running_loop().time
    last, since = None, now()
    while left := await sql.fetchval("select count(*) from leasehold.jobs where finished_at is null"):
        for task in tasks:
            if task.done():
                task.result()
        if left != last:
            last, since = left, now()
        if now() - since > patience:
            stuck = await sql.fetch(
                "select id, status, tenant, queue, agent, concurrency_key, conflict_policy, due, run_at from leasehold.jobs"
                " where finished_at is null order by id limit 5"
            )
            raise AssertionError(f"{left} jobs are stranded: {[dict(row) for row in stuck]}")
        await asyncio.sleep(0.05)
