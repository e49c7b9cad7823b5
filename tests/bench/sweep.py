"""What retention costs: jobs with many events swept in batches, beside a partition that is dropped. `sweep.py [EVENTS]`."""

import asyncio
import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from leasehold.db.embedded import open_postgres
from leasehold.db.migrate import migrate
from sql.people import register

EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
EACH = 20
FILL = f"""
alter table leasehold.jobs disable trigger user;
insert into leasehold.jobs (tenant, agent, prompt, run_at, created_at, updated_at, status, finished_at, attempts)
select 't' || g % 100, 'fixer', 'x', t, t, t, 'succeeded', t, 1
  from generate_series(1, {EVENTS // EACH}) g, lateral (select now() - interval '200 days' + g * interval '1 second' as t) t;
alter table leasehold.jobs enable trigger user;
insert into leasehold.heads (job_id, seq) select id, {EACH} from leasehold.jobs;
insert into leasehold.events (job_id, seq, tenant, at, kind, message)
select j.id, s, j.tenant, j.finished_at, 'message', repeat('x', 100) from leasehold.jobs j, generate_series(1, {EACH}) s;
insert into leasehold.runs (job_id, attempt, worker_id, tenant, queue, agent, status, outcome, reason, claimed_at, ended_at)
select id, 1, 1, tenant, queue, agent, 'ended', 'succeeded', 'ok', finished_at, finished_at from leasehold.jobs;
insert into leasehold.output (run_id, stream, byte_offset, job_id, tenant, bytes)
select r.id, 'stdout', piece * 1000, r.job_id, r.tenant, convert_to(repeat('y', 1000), 'UTF8') from leasehold.runs r, generate_series(0, 1) piece;
vacuum analyze;
"""


@asynccontextmanager
async def database():
    if given := os.environ.get("LEASEHOLD_TEST_DSN"):
        yield given
        return
    with tempfile.TemporaryDirectory() as directory:
        async with open_postgres(Path(directory) / "data", durable=True) as dsn:
            yield dsn


async def sweep(sql, worker, what):
    """All batches of one rule: rows, batches, seconds, the longest batch."""
    rows = batches = 0
    began, longest = time.perf_counter(), 0.0
    await sql.execute("update leasehold.retention set keep = case when what = $1 then interval '30 days' end", what)
    while True:
        at = time.perf_counter()
        row = await sql.fetchrow("select * from leasehold.sweep_retention($1, $2)", *worker.me)
        longest = max(longest, time.perf_counter() - at)
        rows, batches = rows + row["removed"], batches + 1
        if batches % 20 == 0:
            await worker.renew()
        if not row["more"]:
            return rows, batches, time.perf_counter() - began, longest


async def main():
    async with database() as dsn:
        sql = await asyncpg.connect(dsn)
        await migrate(sql)
        await sql.execute("insert into leasehold.agents (name, adapter, command) values ('fixer', 'command', '{true}')")
        worker = await register(sql)
        for statement in FILL.strip().split(";\n"):
            await sql.execute(statement)
        for what, unit in (("output", "chunks"), ("jobs", "jobs")):
            rows, batches, seconds, longest = await sweep(sql, worker, what)
            print(
                f"{what}: {rows} {unit} in {batches} batches, {seconds:.1f} s, longest batch {longest * 1000:.0f} ms,"
                f" {seconds / rows * 1e6:.0f} us each"
            )
            if what == "jobs":
                print(
                    f"  of {EACH} events each: {seconds / EVENTS * 1e6:.1f} us an event, with the job, its head and its run"
                )
        assert await sql.fetchval("select count(*) from leasehold.events") == 0
        await partition(sql)
        await sql.close()


async def partition(sql):
    """The same events in one partition by job_id: what appending and dropping cost."""
    copy = f"""select g / {EACH}, g % {EACH} + 1, 't', now(), 'message', repeat('x', 100) from generate_series(0, {EVENTS - 1}) g"""
    for name, made in {
        "plain": "create table plain (like leasehold.events including all)",
        "parted": "create table parted (like leasehold.events including all) partition by range (job_id)",
    }.items():
        await sql.execute(made)
        if name == "parted":
            for part in range(24):
                await sql.execute(
                    f"create table parted_{part} partition of parted for values from ({part * 100000}) to ({(part + 1) * 100000})"
                )
        at = time.perf_counter()
        await sql.execute(f"insert into {name} (job_id, seq, tenant, at, kind, message) {copy}")
        print(f"{name}: {EVENTS} appended in {time.perf_counter() - at:.1f} s", end=", ")
        at = time.perf_counter()
        for n in range(2000):
            await sql.fetch(f"select seq, message from {name} where job_id = $1 and seq > 3 order by seq limit 500", n)
        print(f"read by job {(time.perf_counter() - at) / 2000 * 1e6:.0f} us", end=", ")
        at = time.perf_counter()
        await sql.execute(f"drop table {name if name == 'plain' else 'parted_0'}")
        print(f"dropped in {(time.perf_counter() - at) * 1000:.0f} ms")


asyncio.run(main())
