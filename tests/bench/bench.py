"""Ratios, both sides measured in turn in one run: jobs per second against a bare spawn loop, and insert to exec.

make bench            prints a table; nothing here passes or fails
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg
from leasehold.db.embedded import open_postgres
from leasehold.db.schema import bring_up_to_date
from support.forkserver import start_command
from support.host import Host

JOBS = 400
PARALLEL = 8
ROUNDS = 3


async def bare_loop():
    """The floor: start `true` and wait for it, PARALLEL at a time."""

    async def some(count):
        for _ in range(count):
            await (await asyncio.create_subprocess_exec("true")).wait()

    began = time.perf_counter()
    await asyncio.gather(*(some(JOBS // PARALLEL) for _ in range(PARALLEL)))
    return JOBS / (time.perf_counter() - began)


async def leasehold_jobs(sql):
    """JOBS rows in one statement until the last has succeeded, events and all."""
    began = time.perf_counter()
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'true', 'x' from generate_series(1, $1)", JOBS)
    while await sql.fetchval("select exists (select from leasehold.jobs where finished_at is null)"):
        await asyncio.sleep(0.02)
    return JOBS / (time.perf_counter() - began)


async def notify_and_spawn(dsn, sql):
    """The floor of a pick-up: a NOTIFY round trip and a bare spawn of the same program."""
    heard = asyncio.Event()
    listener = await asyncpg.connect(dsn)
    await listener.add_listener("bench", lambda *_: heard.set())
    times = []
    for _ in range(40):
        heard.clear()
        began = time.perf_counter()
        await sql.execute("notify bench")
        await heard.wait()
        process = await asyncio.create_subprocess_exec("date", "+%s%N", stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        times.append(int(said) / 1e9 - (time.time() - (time.perf_counter() - began)))
        await asyncio.sleep(0.15)
    await listener.close()
    return times


async def insert_to_exec(sql):
    """From the commit of the insert to the agent's own first look at the clock."""
    times = []
    for _ in range(40):
        job = await sql.fetchval("insert into leasehold.jobs (agent, prompt) values ('clock', 'x') returning id")
        committed = time.time()
        while not (
            said := await sql.fetchval(
                "select convert_from(bytes, 'UTF8') from leasehold.output where job_id = $1", job
            )
        ):
            await asyncio.sleep(0.005)
        times.append(int(said) / 1e9 - committed)
        await asyncio.sleep(0.15)
    return times


async def main():
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as directory:
        root = Path(directory)
        async with open_postgres(root / "pg" / "data", durable=True) as dsn:
            await bring_up_to_date(dsn)
            host = Host(root / "host", dsn, "bench")
            host.start = start_command
            sql = await asyncpg.connect(dsn)
            await sql.execute(
                "insert into leasehold.agents (name, command) values ('true', '{true}'), ('clock', '{date,+%s%N}')"
            )
            try:
                async with host.daemon(max_runs=PARALLEL):
                    await report(dsn, sql)
            finally:
                await sql.close()
                host.clear()


async def report(dsn, sql):
    pairs = [(await bare_loop(), await leasehold_jobs(sql)) for _ in range(ROUNDS)]
    for floor, ours in pairs:
        print(f"`true` jobs/s: bare spawn loop {floor:7.0f}   leasehold {ours:7.0f}   ratio {ours / floor:.2f}")
    print(f"  median ratio {statistics.median(ours / floor for floor, ours in pairs):.2f} (budget 0.8)")
    floor, ours = statistics.median(await notify_and_spawn(dsn, sql)), statistics.median(await insert_to_exec(sql))
    print(
        f"insert to exec, p50: floor {floor * 1e3:.1f} ms   leasehold {ours * 1e3:.1f} ms   ratio {ours / floor:.1f} (budget 2)"
    )


if __name__ == "__main__":
    asyncio.run(main())
