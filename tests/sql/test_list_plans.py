"""Lists and threads read what they show, whatever the planner believes of a large past."""

import asyncio

import asyncpg
import pytest
from sql.backlog import TOLD, alone, copy_of, filled_database, touched

JOBS = """
alter table leasehold.jobs disable trigger user;
insert into leasehold.jobs (tenant, agent, prompt, run_at, lane, created_at, updated_at, status, finished_at, started_at, thread)
select 't8', 'fixer', 'x', leasehold.clock(), 1, leasehold.clock(), leasehold.clock(),
       case when g % 4 = 0 then 'queued' else 'succeeded' end, case when g % 4 <> 0 then leasehold.clock() end, leasehold.clock(),
       't' || case when g % 2 = 0 then 0 else g % 500 end
  from generate_series(1, 8000) g;
alter table leasehold.jobs enable trigger user;
insert into leasehold.threads (tenant, thread, status, active, last_activity_at, updated_at, resolved_at)
select 't8', 'u' || g, 'succeeded', false, leasehold.clock() + g * interval '1 s', leasehold.clock(), leasehold.clock()
  from generate_series(1, 8000) g;
insert into leasehold.read_cursors (tenant, thread, login, reader, version)
select 't8', thread, session_user, 'ann', version from leasehold.threads where version % 2 = 0;
"""
BIG = ("jobs", "heads", "events", "runs", "threads", "read_cursors")
STEPS = {
    "project_thread('t8', 't0')": 40,
    "active_summary('t0', 't8')": 4100,  # it counts the live ones of the thread that it does not list
    "list_jobs(tenant => 't8', rows_max => 20)": 40,
    "list_jobs(tenant => 't9', rows_max => 20, sort => 'oldest')": 40,
    "list_jobs('live', sort => 'priority', tenant => 't8', rows_max => 20)": 40,
    "list_jobs(thread => 't0', tenant => 't8', rows_max => 20)": 40,
    "list_threads('all', 'ann', 20, tenant => 't8')": 100,
    "list_threads('unread', 'ann', 20, tenant => 't8')": 100,
    "mark_thread_read('u1', 'ann', 0, 't8')": 20,
    "list_events(1)": 10,
    "queue_front('default', null, 20)": 12000,  # twenty of each lane
}
"""How many rows each may read of a table, at most."""


@pytest.fixture(scope="module")
def filled(server):
    """The name of a database to copy."""
    with asyncio.Runner() as loop:
        database = filled_database(server, JOBS)
        yield loop.run(database.__aenter__())
        loop.run(database.__aexit__(None, None, None))


@pytest.fixture(params=TOLD)
async def backlog(request, server, filled):
    async with copy_of(server, filled) as dsn:
        await alone(dsn, TOLD[request.param])
        yield dsn


@pytest.mark.rule("O6")
async def test_nothing_grows_with_the_past(backlog, request):
    connection, wrong = await asyncpg.connect(backlog), {}
    believes = request.node.callspec.params["backlog"]
    alike = believes == "pages without rows"  # all indexes are, then: jobs of this very thread are read in vain
    for call, usual in STEPS.items():
        most = 30000 if alike and "'t0'" in call else usual
        _, read = await touched(connection, f"select * from leasehold.{call}", keep=False)
        wrong |= {
            (call, table): rows for table, rows in read.items() if table in BIG and (rows[0] > 0 or rows[1] > most)
        }
    await connection.close()
    assert not wrong, "\n".join(map(str, wrong.items()))


async def test_what_forbids_the_planner_something_forbids_it_to_compile_too(sql):
    """What is forbidden counts as very dear, so that each call would be compiled first: 0.2 s for 1 ms of work."""
    dear = await sql.fetch(
        "select proname from pg_proc where pronamespace = 'leasehold'::regnamespace"
        " and array_to_string(proconfig, ' ') like '%enable_%' and not 'jit=off' = any (proconfig)"
    )
    assert [row["proname"] for row in dear] == []
