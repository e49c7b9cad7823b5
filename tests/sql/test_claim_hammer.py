"""The claim under a crowd: short, but with everything at once."""

import asyncio
import random
from datetime import timedelta

import asyncpg
import pytest
from sql.crowds import drained


async def agents(sql, *names):
    for name in names:
        await sql.execute("insert into leasehold.agents (name, command) values ($1, '{true}')", name)


@pytest.mark.rule("SW1", "AW29", "P46", "P86", "PW14", "OW1", "X10")
@pytest.mark.race
async def test_hammer(sql, connect, hire, sane):
    """Many claimers, producers with open transactions, keys, limits, losses, a canceller, a pauser: nothing over a limit, nothing stranded."""
    await agents(sql, "a1", "a2", "a3", "a4")
    await sql.execute("""
        update leasehold.agents set max_running = 2 where name = 'a1';
        update leasehold.agents set max_running = 5 where name = 'a2';
        update leasehold.agents set retry_backoff = '0', retry_backoff_max = '0';
        insert into leasehold.tenants (name, max_running, weight) select 't' || g, case when g % 2 = 0 then 3 end, 1 + g % 3
          from generate_series(1, 8) g;
        insert into leasehold.queues (name, max_running) values ('narrow', 2);""")
    total, done, chance = 400, asyncio.Event(), random.Random(4)
    left = [total]
    over = """
        select 'agent ' || r.agent from leasehold.runs r join leasehold.agents a on a.name = r.agent
         where r.ended_at is null group by r.agent, a.max_running having count(*) > a.max_running
        union all select 'tenant ' || r.tenant from leasehold.runs r join leasehold.tenants t on t.name = r.tenant
         where r.ended_at is null group by r.tenant, t.max_running having count(*) > t.max_running
        union all select 'queue ' || r.queue from leasehold.runs r join leasehold.queues q on q.name = r.queue
         where r.ended_at is null group by r.queue, q.max_running having count(*) > q.max_running
        union all select 'key ' || j.concurrency_key from leasehold.runs r join leasehold.jobs j on j.id = r.job_id
         where r.ended_at is null and j.concurrency_key is not null group by j.tenant, j.concurrency_key having count(*) > 1"""

    async def producer():
        connection = await connect()
        while left[0] > 0:
            many = min(chance.choice([1, 1, 5, 30]), left[0])
            left[0] -= many
            async with connection.transaction():
                for _ in range(many):
                    await connection.execute(
                        "insert into leasehold.jobs (tenant, agent, queue, prompt, priority, concurrency_key, run_at, max_attempts, max_losses)"
                        " values ($1, $2, $3, 'x', $4, $5, leasehold.clock() + $6, 3, 50)",
                        f"t{chance.randint(1, 8)}", f"a{chance.randint(1, 4)}", chance.choice(["default", "default", "narrow"]),
                        chance.choice([0, 0, 5]), chance.choice([None, None, f"k{chance.randint(1, 6)}"]),
                        timedelta(milliseconds=chance.choice([0, 0, 200])),
                    )  # fmt: skip
                await asyncio.sleep(chance.choice([0, 0, 0.05]))

    async def runner(number):
        claims, ends, busy = await connect(), await connect(), set()
        worker = await hire(claims, instance=f"w{number}")
        turn = asyncio.Lock()

        async def one(run):
            await asyncio.sleep(chance.random() * 0.02)
            outcome, reason = chance.choices(
                [("succeeded", None), ("failed", "exit_code"), ("lost", "worker_lost"), ("interrupted", "stopped")],
                [80, 10, 5, 5],
            )[0]
            async with turn:
                await worker.finish(run, outcome, reason, sql=ends)

        while not done.is_set():
            runs = await worker.claim(6 - len(busy)) if len(busy) < 6 else []
            for run in runs:
                task = asyncio.create_task(one(run))
                busy.add(task)
                task.add_done_callback(busy.discard)
            await asyncio.sleep(0.002 if runs else 0.01)
        await asyncio.gather(*busy)

    async def canceller():
        connection = await connect()
        while not done.is_set():
            if found := await connection.fetchval(
                "select id from leasehold.jobs where status in ('queued', 'deferred') order by random() limit 1"
            ):
                try:
                    await connection.execute("select leasehold.cancel($1)", found)
                except asyncpg.PostgresError as error:
                    assert error.sqlstate == "LH021"
            await asyncio.sleep(0.05)

    async def pauser():
        connection = await connect()
        while not done.is_set():
            await connection.execute("select leasehold.pause_agent('a4')")
            await asyncio.sleep(0.05)
            await connection.execute("select leasehold.resume_agent('a4')")
            await asyncio.sleep(0.05)

    async def checker():
        connection = await connect()
        while not done.is_set():
            assert await connection.fetch(over) == []
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(part) for part in (*(runner(n) for n in range(5)), canceller(), pauser(), checker())]
    await asyncio.gather(*(producer() for _ in range(3)))
    await drained(sql, tasks)
    done.set()
    await asyncio.gather(*tasks)
    assert await sql.fetchval("select count(*) from leasehold.jobs") == total
    assert await sql.fetchval("select count(*) from leasehold.runs where ended_at is null") == 0
    assert (
        await sql.fetch("select job_id from leasehold.runs where outcome = 'succeeded' group by 1 having count(*) > 1")
        == []
    )
    await sane()
