"""A database with a large past and a long queue, and what the planner may have been told of it."""

import secrets
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from leasehold.db.migrate import migrate

BACKLOG = """
do $$
declare
  name text;
begin
  for name in select t.tablename from pg_tables t where t.schemaname = 'leasehold' loop
    execute format('alter table leasehold.%I set (autovacuum_enabled = off)', name);
  end loop;
end $$;
insert into leasehold.agents (name, adapter, command) values ('fixer', 'command', '{true}'), ('other', 'command', '{true}'),
  ('talker', 'codex', '{true}');
analyze;
alter table leasehold.jobs disable trigger user;
alter table leasehold.turns disable trigger user;
insert into leasehold.jobs (tenant, agent, prompt, run_at, lane, created_at, updated_at, status, finished_at)
select 't' || g % 200, 'fixer', 'x', leasehold.clock(), leasehold.lane_of('default', 't' || g % 200, 'fixer'), leasehold.clock(), leasehold.clock(),
       case when g % 4 = 0 then 'queued' else 'succeeded' end, case when g % 4 <> 0 then leasehold.clock() end
  from generate_series(1, 24000) g;
insert into leasehold.jobs (tenant, agent, prompt, run_at, lane, created_at, updated_at, due, concurrency_key, status, waits_until)
select 'k', 'fixer', 'x', leasehold.clock() + '1 day', leasehold.lane_of('default', 'k', 'fixer'), leasehold.clock(), leasehold.clock(), false, 'k' || g,
       case when g % 2 = 0 then 'queued' else 'deferred' end, leasehold.clock() + case when g <= 20 then '-1 hour' else '1 day' end::interval
  from generate_series(1, 4000) g;
alter table leasehold.jobs enable trigger user;
insert into leasehold.wakeups (tenant, agent, key, actor, disposition, job_id, decided_at)
select tenant, agent, concurrency_key, 'x', case status when 'deferred' then 'deferred' else 'accepted' end, id,
       case when status <> 'deferred' then leasehold.clock() end
  from leasehold.jobs;
insert into leasehold.heads (job_id, seq) select id, 1 from leasehold.jobs;
insert into leasehold.events (job_id, seq, tenant, kind) select id, 1, tenant, 'queued' from leasehold.jobs;
insert into leasehold.workers (instance, host_id, boot_id, keeper_id, version, capacity, lease, lease_expires_at, state, ended_at)
select 'i' || g % 20, 'h', 'b', 'k' || g % 20, '0', 1, '1 minute', leasehold.clock() - interval '1 day', 'closed', leasehold.clock()
  from generate_series(1, 2000) g;
insert into leasehold.runs (job_id, attempt, worker_id, tenant, queue, agent, status, outcome, reason, claimed_at, ended_at)
select id, 1, 1 + id % 2000, tenant, queue, agent, 'ended', case when id % 100 = 1 then 'lost' else 'succeeded' end,
       case when id % 100 = 1 then 'worker_lost' else 'ok' end, leasehold.clock(), leasehold.clock()
  from leasehold.jobs where finished_at is not null;
insert into leasehold.output (run_id, stream, byte_offset, job_id, tenant, bytes)
select r.id, 'stdout', piece, r.job_id, r.tenant, 'x' from leasehold.runs r, generate_series(0, 1) piece where r.id <= 9000;
insert into leasehold.turns (tenant, job_id, run_id, seq, kind, text, actor, payload_hash, deliverable, state, outcome, ended_at)
select r.tenant, r.job_id, r.id, n, 'steer', 'x', 'x', '', true, 'ended', 'done', leasehold.clock()
  from leasehold.runs r, generate_series(1, 2) n where r.id <= 9000;
alter table leasehold.turns enable trigger user;
insert into leasehold.messages (tenant, job_id, run_id, source, role, external_id)
select r.tenant, r.job_id, r.id, case n when 1 then 'prompt' else 'agent' end, 'user', 'm' || n
  from leasehold.runs r, generate_series(1, 2) n where r.id <= 9000;
insert into leasehold.interactions (tenant, job_id, run_id, external_id, kind, status, response, answered_by, answered_at, closed_at, delivered_at)
select r.tenant, r.job_id, r.id, n, 'permission', 'answered', '{}', 'x', leasehold.clock(), leasehold.clock(), leasehold.clock()
  from leasehold.runs r, generate_series(1, 2) n where r.id <= 9000;
insert into leasehold.lanes (lane, queue, tenant, agent)
select distinct lane, queue, tenant, agent from leasehold.jobs where status = 'queued' and due;
insert into leasehold.shares (tenant) select distinct tenant from leasehold.lanes;
insert into leasehold.tenants (name, max_running) select 't' || g, case when g % 3 = 0 then 5 end from generate_series(0, 199) g;
"""
LIE = """
update pg_class set reltuples = {tuples}, relpages = {pages}
 where relnamespace = 'leasehold'::regnamespace and relkind in ('r', 'i')
"""
TOLD = {
    "the tables are empty": "select",  # as they were when BACKLOG looked
    "the truth": "analyze",
    "pages without rows": LIE.format(tuples=1, pages=100000),
    "rows without end": LIE.format(tuples=1e9, pages=1),
}
"""What the planner believes."""

READ = """
select relname, seq_tup_read, coalesce(idx_tup_fetch, 0) as fetched from pg_stat_xact_user_tables where schemaname = 'leasehold'
"""


async def touched(sql, query, *arguments, keep=True):
    """A statement's rows, and how many rows it read of each table: (by sequential scan, by index)."""
    transaction = sql.transaction()
    await transaction.start()
    before = {row["relname"]: row for row in await sql.fetch(READ)}
    rows = await sql.fetch(query, *arguments)
    after = {row["relname"]: row for row in await sql.fetch(READ)}
    await (transaction.commit() if keep else transaction.rollback())
    return rows, {
        name: (row["seq_tup_read"] - before[name]["seq_tup_read"], row["fetched"] - before[name]["fetched"])
        for name, row in after.items()
    }


@asynccontextmanager
async def copy_of(server, template):
    """The DSN of a new database with what the template has, dropped afterwards."""
    name = f"leasehold_test_{secrets.token_hex(6)}"
    await alone(server, f"create database {name} template {template}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await alone(server, f"drop database {name} with (force)")


async def alone(dsn, *statements):
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def filled_database(server, *more):
    """Its name; `more` statements fill it further."""
    async with copy_of(server, "template1") as dsn:
        connection = await asyncpg.connect(dsn)
        await migrate(connection)
        await connection.close()
        await alone(dsn, BACKLOG, *more)
        yield urlsplit(dsn).path[1:]
