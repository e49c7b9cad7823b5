"""How the claim bears a million queued jobs of a thousand tenants: time of one claim against a small queue, and who waits how long."""

import asyncio
import random
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import asyncpg
from leasehold.db.embedded import open_postgres
from leasehold.db.migrate import migrate
from sql.backlog import copy_of

TENANTS, SLOTS, REPEATS = 1000, 8, 30
SMALL = 10_000
FILL = """
insert into leasehold.jobs (tenant, agent, prompt, priority)
select 't' || g % $2, 'fixer', 'x', g % 3 from generate_series(1, $1::int) g
"""


class Crowd:
    """One worker on one connection; runs are simulated by ending them."""

    def __init__(self, sql):
        self.sql = sql

    async def begin(self):
        await self.sql.execute("""
            insert into leasehold.agents (name, command) values ('fixer', '{true}') on conflict do nothing""")
        row = await self.sql.fetchrow(
            "select * from leasehold.register_worker('bench', 'host', 'b', 'k', '0', 1000, null, '1 day')"
        )
        self.me = row["worker"], row["token"]

    async def queue(self, jobs, tenants=TENANTS):
        for _ in range(0, jobs, 100_000):
            await self.sql.execute(FILL, min(jobs, 100_000), tenants)
        await self.drain_notes()
        await self.sql.execute("analyze")

    async def drain_notes(self):
        """Thousands of new lanes are told in one go; the claims that are measured come later."""
        while await self.sql.fetchval("select count(*) from leasehold.arrivals where lane is not null"):
            await self.end(await self.claim(1))

    async def claim(self, slots=SLOTS):
        return await self.sql.fetch("select * from leasehold.claim($1, $2, $3)", *self.me, slots)

    async def end(self, runs):
        for run in runs:
            await self.sql.fetch(
                "select * from leasehold.finish_run($1, $2, $3, $4, 'succeeded')",
                *self.me,
                run["run_id"],
                run["run_token"],
            )

    async def once(self):
        """Milliseconds of one claim of 8, whose runs are then ended: the next one finds the same."""
        start = time.perf_counter()
        runs = await self.claim()
        took = (time.perf_counter() - start) * 1000
        await self.end(runs)
        return took, len(runs)


async def compare(name, small, large, repeats=REPEATS):
    """Both sides in turn, so that whatever else the machine does falls on both."""
    for crowd in (small, large) * 5:
        await crowd.once()
    found = [(await small.once(), await large.once()) for _ in range(repeats)]
    assert all(taken == SLOTS for pair in found for _, taken in pair)
    one, other = ([pair[side][0] for pair in found] for side in (0, 1))
    print(
        f"  {name:38} {median(one):7.2f} ms  {median(other):7.2f} ms   ratio {median(other) / median(one):.2f}",
        flush=True,
    )


async def newcomer_waits(crowd, slots=32, rounds=40, mean=1.0):
    """Every place is taken when a tenant that has nothing else asks: three at once, now and then. Runs last `mean` on a clock of
    their own, exponentially. Answers the waits until the start, in mean run times, and how many have not started."""
    chance, now, live, waits, asked = random.Random(1), 0.0, [], [], {}
    for turn in range(rounds * slots):
        for run in await crowd.claim(slots - len(live)):
            if run["job_id"] in asked:
                waits.append((now - asked.pop(run["job_id"])) / mean)
            live.append((now + chance.expovariate(1 / mean), run["run_id"], run))
        if turn % slots == slots // 2 and turn > 2 * slots:
            for one in range(3):
                asked[await crowd.sql.fetchval(
                    "insert into leasehold.jobs (tenant, agent, prompt) values ($1, 'fixer', 'x') returning id", f"small{turn}-{one}"
                )] = now  # fmt: skip
        live.sort(key=lambda one: one[:2])
        now, _, run = live.pop(0)
        await crowd.end([run])
    await crowd.end([run for _, _, run in live])
    return waits, len(asked)


async def begin(dsn, jobs):
    sql = await asyncpg.connect(dsn)
    await migrate(sql)
    crowd = Crowd(sql)
    await crowd.begin()
    await crowd.queue(jobs)
    return crowd


async def measure(dsn, jobs):
    async with copy_of(dsn, "template1") as one, copy_of(dsn, "template1") as other:
        small, large = await begin(one, SMALL), await begin(other, jobs)
        await large.sql.execute("checkpoint")
        print(
            f"one claim of {SLOTS}: the median of {REPEATS}, with {SMALL} and with {jobs} queued jobs of {TENANTS} tenants",
            flush=True,
        )
        for _ in range(3):
            await compare("all tenants free", small, large)
        for crowd in (small, large):
            await crowd.sql.execute("""
                insert into leasehold.tenants (name, max_running) select 't' || g, 0 from generate_series(0, 499) g""")
            print(f"  500 limits are new: that claim takes {(await crowd.once())[0]:.1f} ms", flush=True)
        await compare("500 tenants at their limit", small, large)
        for crowd in (small, large):
            await crowd.sql.execute("update leasehold.tenants set max_running = null")
        await compare("and free again", small, large)
        waits, left = await newcomer_waits(large)
        print(
            f"waits of {len(waits)} new jobs of small tenants, 32 places always taken, {left} have not started; in mean run times:"
        )
        print(
            f"  mean {sum(waits) / len(waits):.3f}   median {median(waits):.3f}   longest {max(waits):.3f}", flush=True
        )
        for crowd in (small, large):
            await crowd.sql.close()


async def main(jobs):
    with TemporaryDirectory() as home:
        async with open_postgres(Path(home) / "data", durable=True, max_connections=20) as dsn:
            await measure(dsn, jobs)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
