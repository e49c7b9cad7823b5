"""`make flood`: what an agent that writes 5 GB costs: memory, disk, time, and the patience of the other runs."""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
from conftest import TEMPLATE, database, make_template, server_for
from support import flood as floods
from support.flood import on_disk, rss
from support.forkserver import start_command
from support.host import Host

MIB = 1024 * 1024
PATIENCE = 600
"""Seconds for all floods together."""


def cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def latency(sql, times):
    """Seconds from insert to the visible outcome of a job that only says a word."""
    began = time.monotonic()
    job = await sql.fetchval("insert into leasehold.jobs (agent, prompt) values ('quick', 'x') returning id")
    while await sql.fetchval("select status from leasehold.jobs where id = $1", job) != "succeeded":
        await asyncio.sleep(0.002)
    times.append(time.monotonic() - began)


def words(times):
    times = sorted(times)
    return f"p50 {times[len(times) // 2] * 1000:.0f} ms, p90 {times[len(times) * 9 // 10] * 1000:.0f} ms, worst {times[-1] * 1000:.0f} ms"


async def measure(gigabytes, floods_at_once):
    directory = Path(tempfile.mkdtemp(prefix="leasehold-flood-"))
    try:
        async with server_for(directory / "pg") as server:
            await make_template(server)
            sql = await asyncpg.connect(database(server, TEMPLATE))
            host = Host(directory / "host", database(server, TEMPLATE), "flood")
            host.start = start_command
            await run(sql, host, int(gigabytes * 1e9), floods_at_once)
            await sql.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def run(sql, host, total, at_once):
    insert = "insert into leasehold.agents (name, command) values ($1, $2)"
    await sql.execute(insert, "quick", ["echo", "a word"])
    await sql.execute(insert, "flood", [sys.executable, floods.__file__, str(total)])
    async with host.daemon(log_level="info", max_runs=16) as daemon:
        alone, beside = [], []
        for _ in range(20):
            await latency(sql, alone)
        before, memory, disk, began, used = rss(daemon.pid), 0, 0, time.monotonic(), cpu(daemon.pid)
        await sql.execute(
            "insert into leasehold.jobs (agent, prompt) select 'flood', 'go' from generate_series(1, $1)", at_once
        )
        left = "select count(*) from leasehold.jobs where agent = 'flood' and status not in ('succeeded', 'failed')"

        async def others():
            while True:
                await latency(sql_two, beside)

        sql_two = await asyncpg.connect(host.dsn)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            task = group.create_task(others())
            while await sql.fetchval(left):
                memory, disk = max(memory, rss(daemon.pid)), max(disk, on_disk(host.directory / "runs"))
                await asyncio.sleep(0.01)
            seconds, used = time.monotonic() - began, cpu(daemon.pid) - used
            task.cancel()
        print(
            f"flood                {at_once} x {total / 1e9:.2f} GB in {seconds:.1f} s: {at_once * total / seconds / 1e6:.0f} MB/s"
        )
        print(f"daemon               {used:.1f} s of CPU: {at_once * total / used / 1e6:.0f} MB per second of it")
        print(f"daemon's memory      {before / MIB:.1f} MiB before, peak +{(memory - before) / MIB:.1f} MiB")
        print(f"disk, run directories  peak {disk / MIB:.0f} MiB")
        print(
            f"table output         {await sql.fetchval('select pg_total_relation_size($1)', 'leasehold.output') / MIB:.0f} MiB"
        )
        print(f"other runs alone     {words(alone)} ({len(alone)})")
        print(f"other runs beside    {words(beside)} ({len(beside)})")
        for row in await sql.fetch("select output, outcome, message from leasehold.runs where agent = 'flood'"):
            print(f"{row['outcome']:20} {row['message'] or json.loads(row['output'])['stdout']}")
        await sql_two.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", type=float, nargs="?", default=5.0)
    parser.add_argument("floods", type=int, nargs="?", default=1)
    asked = parser.parse_args()
    asyncio.run(measure(asked.gigabytes, asked.floods))
