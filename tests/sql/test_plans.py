"""Plans that do not flip: whatever the planner believes of a large backlog, the hot calls touch only what they need."""

import asyncio

import pytest
from sql.backlog import TOLD, copy_of, filled_database, touched

BIG = ("jobs", "heads", "events", "runs", "output")


@pytest.fixture(scope="module")
def filled(server):
    """The name of a database to copy: filling it takes longer than any test here."""
    with asyncio.Runner() as loop:
        database = filled_database(server)
        yield loop.run(database.__aenter__())
        loop.run(database.__aexit__(None, None, None))


@pytest.fixture
async def dsn(server, filled):
    """A copy of it for each test."""
    async with copy_of(server, filled) as dsn:
        yield dsn


@pytest.fixture
def fixer(filled):
    return "fixer"


@pytest.fixture(params=TOLD)
async def backlog(request, sql):
    await sql.execute(TOLD[request.param])
    return sql


@pytest.fixture
def touches(sql):
    return lambda query, *arguments: touched(sql, query, *arguments)


async def test_a_claim_reads_as_many_rows_as_it_takes(backlog, hire, touches):
    worker = await hire()
    await worker.claim(8)
    rows, read = await touches("select * from leasehold.claim($1, $2, 8)", *worker.me)
    assert len(rows) == 8
    for table in (*BIG, "runs"):
        assert read[table][0] == 0, (table, read)
    assert read["jobs"][1] < 300 and read["heads"][1] < 100, read


async def test_a_claim_with_the_front_tenants_full_does_not_scan_their_backlog(backlog, hire, touches, sql):
    await sql.execute("update leasehold.tenants set max_running = 0 where name <> 't8'")
    worker = await hire()
    await worker.claim(1)
    rows, read = await touches("select * from leasehold.claim($1, $2, 8)", *worker.me)
    assert len(rows) == 8
    assert read["jobs"][0] == 0 and read["jobs"][1] < 300, read


async def test_renewing_many_runs_reads_no_backlog(backlog, hire, touches):
    worker = await hire()
    runs = [row["run_id"] for row in await worker.claim(500)]
    await backlog.execute("select leasehold.cancel($1)", (await worker.read(runs[:1]))[0]["job_id"])
    rows, read = await touches("select * from leasehold.renew($1, $2, $3, '2 min')", *worker.me, [*runs, 999999])
    assert len(rows) == 3
    assert read["jobs"][0] == 0 and read["jobs"][1] < 20, read
    assert read["runs"][0] == 0 and read["runs"][1] <= 510, {**read}


@pytest.mark.parametrize("what", ["finish", "keyed insert", "cancel", "next_due", "read_runs", "append", "ship"])
async def test_single_steps_read_no_backlog(backlog, hire, touches, what, job):
    worker = await hire()
    run = await worker.claim_one()
    await job(concurrency_key="warm")
    arguments = (run["run_id"], run["run_token"])
    match what:
        case "finish":
            call = ("select * from leasehold.finish_run($1, $2, $3, $4, 'failed', 'exit_code')", *worker.me, *arguments)
        case "keyed insert":
            call = (
                "insert into leasehold.jobs (agent, prompt, concurrency_key, idempotency_key) values ('fixer', 'x', 'warm', 'i')",
            )
        case "cancel":
            call = ("select leasehold.cancel(24001 - 1)",)
        case "next_due":
            call = ("select leasehold.next_due($1)", worker.id)
        case "read_runs":
            call = ("select * from leasehold.read_runs($1, $2, $3)", *worker.me, [run["run_id"]])
        case "append":
            call = (
                "select * from leasehold.append_events(array[$1::bigint], array[$2::uuid], '{0}', '{m}', '{info}', '{x}', '{x}', '{null}')",
                *arguments,
            )
        case "ship":
            call = (
                "select * from leasehold.append_output(array[$1::bigint], array[$2::uuid], '{stdout}', '{0}', '{x}')",
                *arguments,
            )
    _, read = await touches(*call)
    for table in BIG:
        assert read[table][0] == 0, (table, read)
    assert read["jobs"][1] < 40, read


async def test_reaping_reads_only_the_runs_of_the_lost(backlog, hire, touches):
    lost, reaper = await hire(), await hire(instance="beta")
    await lost.claim(100)
    await reaper.claim(10)
    await backlog.execute("update leasehold.workers set lease_expires_at = leasehold.clock() where id = $1", lost.id)
    rows, read = await touches("select * from leasehold.reap($1, $2, $3, '{0}')", *reaper.me, [lost.id])
    assert len(rows) == 50
    for table in BIG:
        assert read[table][0] == 0, (table, read)
    assert read["jobs"][1] < 1000, read


async def test_a_page_of_changes_reads_a_page(backlog, touches, eventually):
    await eventually(backlog, "select count(*) from leasehold.changes(null, 100)", expected=100)
    rows, read = await touches("select * from leasehold.changes(null, 100)")
    assert len(rows) == 100
    assert read["events"][0] == 0 and read["events"][1] <= 150, read


async def test_renewals_stay_in_place(sql, worker):
    for _ in range(200):
        await worker.renew()
    await sql.execute("select pg_stat_force_next_flush()")
    assert await sql.fetchval(
        "select n_tup_hot_upd >= n_tup_upd * 0.9 from pg_stat_user_tables where relname = 'workers'"
    )
