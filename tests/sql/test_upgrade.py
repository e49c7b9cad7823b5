"""A database of the first release, with work in it, brought up to date: nothing is forgotten, everything starts."""

import shutil

import asyncpg
import pytest
from leasehold.db.migrate import migrate, sql_home
from sql.people import register

FIRST = "0007"
"""The last migration of the release that is upgraded from."""
OLD = """
insert into leasehold.agents (name, command) values ('fixer', '{true}');
insert into leasehold.tenants (name, max_running) values ('acme', 1);
insert into leasehold.jobs (tenant, agent, prompt, priority, run_at, status, due, lane, concurrency_key, created_at, updated_at)
select tenant, 'fixer', prompt, priority, now() + ahead, status, ahead <= '0', hashtextextended('default' || e'\\x1f' || tenant || e'\\x1f' || 'fixer', 0),
       key, now(), now()
  from (values ('acme', 'low', 0, interval '0', 'queued', null), ('acme', 'high', 9, '0', 'queued', 'k'), ('acme', 'later', 0, '1 hour', 'queued', null),
               ('other', 'alone', 0, '0', 'queued', null), ('acme', 'behind', 0, '0', 'deferred', 'k')) old (tenant, prompt, priority, ahead, status, key);
insert into leasehold.heads (job_id, seq) select id, 1 from leasehold.jobs;
insert into leasehold.events (job_id, seq, tenant, kind) select id, 1, tenant, status from leasehold.jobs;
insert into leasehold.lanes (lane, queue, tenant, agent) select distinct lane, queue, tenant, agent from leasehold.jobs where tenant = 'acme';
insert into leasehold.arrivals (lane, queue, tenant, agent, key) select lane, queue, tenant, agent, null from leasehold.jobs where tenant = 'other';"""


@pytest.fixture
async def upgraded(empty_dsn, tmp_path):
    home = shutil.copytree(sql_home(), tmp_path / "sql")
    for path in [*(home / "functions").glob("*.sql"), *(home / "migrations").glob("*.sql")]:
        if path.parent.name == "functions" or path.name[:4] > FIRST:
            path.unlink()
    connection = await asyncpg.connect(empty_dsn)
    await migrate(connection, home)
    await connection.execute(OLD)
    await migrate(connection)
    yield connection
    await connection.close()


async def test_what_waited_before_the_upgrade_starts_after_it_in_its_order(upgraded):
    worker = await register(upgraded)

    async def claimed():
        runs = await worker.claim()
        rows = await upgraded.fetch(
            "select id, prompt from leasehold.jobs where id = any ($1)", [run["job_id"] for run in runs]
        )
        return {row["prompt"]: run for run in runs for row in rows if row["id"] == run["job_id"]}

    first = await claimed()
    assert set(first) == {"high", "alone"}, "acme may run one at a time, by priority"
    await worker.finish(first["high"])
    second = await claimed()
    assert len(second) == 1 and set(second) < {"low", "behind"}
    await worker.finish(*second.values())
    third = await claimed()
    assert set(second) | set(third) == {"low", "behind"}, "the key was handed on"
    await worker.finish(*third.values())
    assert await claimed() == {}
    assert await upgraded.fetchval("select status from leasehold.jobs where prompt = 'later'") == "queued"
