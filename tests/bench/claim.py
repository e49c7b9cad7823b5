"""How the claim bears a million queued jobs of a thousand tenants: time of one claim against a small queue, and who waits how long."""

import asyncio
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import asyncpg
from leasehold.db.embedded import open_postgres
from leasehold.db.migrate import migrate

TENANTS, SLOTS, REPEATS = 1000, 8, 25
SMALL = 2000
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

    async def times(self, repeats=REPEATS):
        """Milliseconds of each claim of 8; every run is ended between two, so that each claim finds the same."""
        found = []
        for _ in range(repeats):
            start = time.perf_counter()
            runs = await self.claim()
            found.append((time.perf_counter() - start) * 1000)
            assert len(runs) == SLOTS, len(runs)
            await self.end(runs)
        return found


async def newcomer_waits(crowd, slots=32, rounds=40, mean=1.0):
    """Full load: `slots` runs live at any time, each simulated to last `mean` on a clock of its own, exponentially; a tenant of few
    jobs comes now and then. Answers the newcomers' waits in mean run times."""
    import random

    chance, now, live, waits, asked = random.Random(1), 0.0, [], [], {}
    for turn in range(rounds * slots):
        if turn % slots == slots // 2 and turn > 2 * slots:
            job = await crowd.sql.fetchval(
                "insert into leasehold.jobs (tenant, agent, prompt) values ($1, 'fixer', 'x') returning id",
                f"small{turn}",
            )
            asked[job] = now
        for run in await crowd.claim(slots - len(live)):
            if run["job_id"] in asked:
                waits.append((now - asked.pop(run["job_id"])) / mean)
            live.append((now + chance.expovariate(1 / mean), run["run_id"], run))
        live.sort(key=lambda one: one[:2])
        now, _, run = live.pop(0)
        await crowd.end([run])
    await crowd.end([run for _, _, run in live])
    return waits, len(asked)


def row(name, found, base=None):
    found = sorted(found)
    ratio = f"{median(found) / base:6.2f}" if base else "      "
    print(f"  {name:44} p50 {median(found):7.2f} ms   p90 {found[int(len(found) * 0.9)]:7.2f} ms   {ratio}", flush=True)
    return median(found)


async def measure(dsn, jobs):
    sql = await asyncpg.connect(dsn)
    await migrate(sql)
    crowd = Crowd(sql)
    await crowd.begin()
    await crowd.times(0)
    print(f"one claim of {SLOTS}, {REPEATS} repeats, and its ratio to the small queue:", flush=True)
    empty = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        assert not await crowd.claim()
        empty.append((time.perf_counter() - start) * 1000)
    row("nothing queued", empty)
    await crowd.queue(SMALL, tenants=TENANTS)
    small = row(f"{SMALL} queued, {TENANTS} tenants", await crowd.times(5) and await crowd.times())
    await crowd.queue(jobs)
    await crowd.times(5)
    row(f"{jobs} queued, {TENANTS} tenants", await crowd.times(), small)
    row("the same again", await crowd.times(), small)
    await sql.execute("update leasehold.jobs set tenant = tenant where false")
    await sql.execute(
        "insert into leasehold.tenants (name, max_running) select 't' || g, 0 from generate_series(0, 499) g"
    )
    start = time.perf_counter()
    await crowd.end(await crowd.claim())
    print(
        f"  half of the tenants are limited to 0: the first claim takes {(time.perf_counter() - start) * 1000:.1f} ms"
    )
    row("500 of 1000 tenants at their limit", await crowd.times(), small)
    await sql.execute("update leasehold.tenants set max_running = null")
    await crowd.times(5)
    row("and free again", await crowd.times(), small)
    waits, left = await newcomer_waits(crowd)
    print(
        f"waits of {len(waits)} new jobs of small tenants, in mean run times, 32 places always taken ({left} have not started):"
    )
    print(f"  mean {sum(waits) / len(waits):.3f}   median {median(waits):.3f}   longest {max(waits):.3f}", flush=True)
    await sql.close()


async def main(jobs):
    with TemporaryDirectory() as home:
        async with open_postgres(Path(home) / "data", durable=True, max_connections=20) as dsn:
            await measure(dsn, jobs)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
