"""Plans that do not flip: with statistics of empty tables and a large backlog, the hot calls still touch only what they need."""

import pytest

BACKLOG = """
alter table leasehold.jobs set (autovacuum_enabled = off);
alter table leasehold.runs set (autovacuum_enabled = off);
alter table leasehold.heads set (autovacuum_enabled = off);
alter table leasehold.lanes set (autovacuum_enabled = off);
alter table leasehold.events set (autovacuum_enabled = off);
analyze leasehold.jobs, leasehold.runs, leasehold.heads, leasehold.lanes, leasehold.workers, leasehold.agents, leasehold.tenants, leasehold.events;
alter table leasehold.jobs disable trigger user;
insert into leasehold.jobs (tenant, agent, prompt, run_at, lane, created_at, updated_at, status, finished_at)
select 't' || g % 200, 'fixer', 'x', leasehold.clock(), leasehold.lane_of('default', 't' || g % 200, 'fixer'), leasehold.clock(), leasehold.clock(),
       case when g % 4 = 0 then 'queued' else 'succeeded' end, case when g % 4 <> 0 then leasehold.clock() end
  from generate_series(1, 24000) g;
insert into leasehold.jobs (tenant, agent, prompt, run_at, lane, created_at, updated_at, due, concurrency_key, status)
select 'k', 'fixer', 'x', leasehold.clock() + '1 day', leasehold.lane_of('default', 'k', 'fixer'), leasehold.clock(), leasehold.clock(), false, 'k' || g,
       case when g % 2 = 0 then 'queued' else 'deferred' end
  from generate_series(1, 4000) g;
alter table leasehold.jobs enable trigger user;
insert into leasehold.heads (job_id, seq) select id, 1 from leasehold.jobs;
insert into leasehold.events (job_id, seq, tenant, kind) select id, 1, tenant, 'queued' from leasehold.jobs;
insert into leasehold.lanes (lane, queue, tenant, agent) select distinct lane, queue, tenant, agent from leasehold.jobs;
insert into leasehold.tenants (name, max_running) select 't' || g, case when g % 3 = 0 then 5 end from generate_series(0, 199) g;
"""
READ = """
select relname, seq_tup_read, coalesce(idx_tup_fetch, 0) as fetched from pg_stat_xact_user_tables where schemaname = 'leasehold'
"""
BIG = ("jobs", "heads", "events")


@pytest.fixture(params=["stale", "analyzed"])
async def backlog(request, sql, fixer):
    await sql.execute(BACKLOG)
    if request.param == "analyzed":
        await sql.execute("analyze")
    return sql


@pytest.fixture
def touches(sql):
    """Run a statement and count the rows it reads from each table: by sequential scan, and by index."""

    async def one(query, *arguments):
        transaction = sql.transaction()
        await transaction.start()
        before = {row["relname"]: row for row in await sql.fetch(READ)}
        rows = await sql.fetch(query, *arguments)
        after = {row["relname"]: row for row in await sql.fetch(READ)}
        await transaction.commit()
        read = {
            name: (row["seq_tup_read"] - before[name]["seq_tup_read"], row["fetched"] - before[name]["fetched"])
            for name, row in after.items()
        }
        return rows, read

    return one


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
