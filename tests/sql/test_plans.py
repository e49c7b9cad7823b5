"""Plans that do not flip: whatever the planner believes of a large backlog, the hot calls touch only what they need."""

import asyncio
from functools import partial

import pytest
from sql.backlog import TOLD, copy_of, filled_database, touched
from sql.talks import asked, said

BIG = ("jobs", "heads", "events", "runs", "output", "workers", "wakeups", "turns", "interactions", "messages")
"""What grows for ever, or nearly."""


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
    return partial(touched, sql)


def assert_untouched(read, at_most):
    """No scan of what grows for ever, and no more rows than that by index."""
    for table in BIG:
        by_scan, by_index = read[table]
        assert by_scan == 0 and by_index <= at_most, (table, read[table], {**read})


@pytest.mark.rule("AW37")
async def test_a_claim_reads_as_many_rows_as_it_takes(backlog, hire, touches):
    worker = await hire()
    await worker.claim(8)
    rows, read = await touches("select * from leasehold.claim($1, $2, 8)", *worker.me)
    assert len(rows) == 8
    assert_untouched(read, at_most=100)


async def test_a_claim_with_the_front_tenants_full_does_not_scan_their_backlog(backlog, hire, touches, sql):
    await sql.execute("update leasehold.tenants set max_running = 0 where name <> 't8'")
    worker = await hire()
    await worker.claim(1)
    rows, read = await touches("select * from leasehold.claim($1, $2, 8)", *worker.me)
    assert len(rows) == 8
    assert_untouched(read, at_most=300)


async def test_renewing_many_runs_reads_no_backlog(backlog, hire, touches):
    worker = await hire()
    runs = [row["run_id"] for row in await worker.claim(500)]
    await backlog.execute("select leasehold.cancel($1)", (await worker.read(runs[:1]))[0]["job_id"])
    rows, read = await touches("select * from leasehold.renew($1, $2, $3, '2 min')", *worker.me, [*runs, 999999])
    assert len(rows) == 3
    assert read["jobs"][1] < 20, read
    assert_untouched(read, at_most=510)


async def test_renewing_hears_of_inputs_from_what_is_pending(backlog, hire, job, touches):
    worker = await hire(queues=["talk"])
    talks = [await worker.claim_job(await job(agent="talker", queue="talk", priority=9)) for _ in range(3)]
    for talk in talks[:2]:
        await backlog.execute("select leasehold.steer($1, 'x')", talk["job_id"])
    await said(backlog, talks[2], ("permission", {"id": 1}, "May I?"))
    await backlog.execute("select leasehold.answer($1, 'allow')", (await asked(backlog))["id"])
    await backlog.execute(
        "insert into leasehold.jobs (agent, prompt, queue) select 'fixer', 'x', 'talk' from generate_series(1, 500)"
    )
    runs = [run["run_id"] for run in [*talks, *await worker.claim(500)]]
    rows, read = await touches("select * from leasehold.renew($1, $2, $3, '2 min')", *worker.me, runs)
    assert sorted(row["run_id"] for row in rows if row["what"] == "input") == [run["run_id"] for run in talks]
    assert read["turns"] == (0, 2) and read["interactions"] == (0, 1), read
    assert_untouched(read, at_most=520)


@pytest.mark.rule("G14")
async def test_reaping_reads_only_the_runs_of_the_lost(backlog, hire, touches):
    lost, reaper = await hire(), await hire(instance="beta")
    await lost.claim(100)
    await reaper.claim(10)
    await backlog.execute("update leasehold.workers set lease_expires_at = leasehold.clock() where id = $1", lost.id)
    rows, read = await touches("select * from leasehold.reap($1, $2, $3, '{0}')", *reaper.me, [lost.id])
    assert len(rows) == 50
    assert_untouched(read, at_most=1000)


async def test_expiring_reads_only_what_has_waited_too_long(backlog, hire, touches):
    worker = await hire()
    rows, read = await touches("select * from leasehold.expire_queued($1, $2)", *worker.me)
    assert len(rows) == 20
    assert_untouched(read, at_most=300)
    rows, read = await touches("select * from leasehold.expire_queued($1, $2)", *worker.me)
    assert rows == [] and read["jobs"] == (0, 0), read


STEPS = {
    "finish": "finish_run({me}, {run}, 'failed', 'exit_code')",
    "finish late": "finish_run({me}, {lost}, 'failed', 'exit_code')",
    "finish late with output": """finish_run({me}, {lost}, 'failed', 'exit_code',
        output => '{{"stdout": {{"kept": [[0, 1], [2, 3]]}}}}')""",
    "read": "read_runs({me}, array[{id}])",
    "read late": "read_late({me}, array[{lost_id}], array[{lost_token}])",
    "start": "start_run({me}, {run}, '{{}}')",
    "speak": """append_events({runs}, '{{1}}', '{{message}}', '{{info}}', '{{null}}', '{{x}}', array['{{"id": "a"}}'::jsonb])""",
    "stream": """append_events({runs}, '{{2}}', '{{delta}}', '{{info}}', '{{null}}', '{{x}}', array['{{"id": "b"}}'::jsonb])""",
    "make": """append_events({runs}, '{{3}}', '{{artifact}}', '{{info}}', '{{null}}', '{{x}}', array['{{"content": "b"}}'::jsonb])""",
    "said": "list_messages({job})",
    "stop": "stop_run({me}, {run}, 'idle')",
    "suspect": "suspect_run({me}, {run}, 'idle', '{{}}')",
    "unkillable": "report_unkillable({me}, {run}, '{{}}')",
    "progress": "report_progress({run}, 'x', 'y')",
    "append events": "append_events({runs}, '{{0}}', '{{m}}', '{{info}}', '{{x}}', '{{x}}', '{{null}}')",
    "append output": "append_output({runs}, '{{stdout}}', '{{9}}', '{{x}}')",
    "append late output": "append_late_output({me}, {lost}, '{{stdout}}', '{{9}}', '{{x}}')",
    "trim output": "trim_output({runs}, '{{stdout}}', '{{0}}', '{{5}}')",
    "save checkpoints": "save_checkpoints({runs}, '{{1}}')",
    "read output": "read_output({run}, 'stdout', -1, 9)",
    "renew": "renew({me}, array[{id}], '2 min')",
    "adopt": "adopt({me}, array[{id}], array[{run_token}], '2 min')",
    "next due": "next_due({worker})",
    "watch": "watch_workers()",
    "deregister": "deregister_worker({idler})",
    "cancel queued": "cancel(24000)",
    "cancel running": "cancel({job})",
    "retry": "retry({failed})",
    "enqueue": "enqueue('fixer', 'x', idempotency_key => 'i', concurrency_key => 'warm')",
    "wake": "wake('fixer', tenant => 'k', key => 'new', idempotency_key => 'w')",
    "wake into what is queued": "wake('fixer', tenant => 'k', key => 'k2', idempotency_key => 'w')",
    "wake into what is deferred": "wake('fixer', tenant => 'k', key => 'k1', idempotency_key => 'w')",
    "wake behind another agent": "wake('other', tenant => 'k', key => 'k2', idempotency_key => 'w')",
    "return existing": "enqueue('fixer', 'x', 'k', concurrency_key => 'k2', conflict_policy => 'return_existing', idempotency_key => 'w')",
    "promote": "promote('k', 'k1')",
    "gather": "gather('k', 'k1')",
    "steer": "steer({talk}, 'x', 'key')",
    "steer what is queued": "steer(24000, 'x')",
    "cancel a turn": "cancel_turn({turn})",
    "answer": "answer({asked}, 'allow')",
    "read inputs": "read_inputs({they}, array[{talk_id}], true)",
    "take inputs": "take_inputs({they}, array[{talk_id}], '{{steer}}', array[{turn}::bigint])",
    "ask": """append_events({talks}, '{{null}}', '{{permission}}', '{{info}}', '{{null}}', '{{x}}', '{{"{{\\\"id\\\": 2}}"}}')""",
    "withdraw": """append_events({talks}, '{{null}}', '{{withdrawn}}', '{{info}}', '{{null}}', '{{x}}', '{{"{{\\\"id\\\": 1}}"}}')""",
    "finish what was talked to": "finish_run({they}, {talk_run}, 'failed', 'exit_code')",
    "expire interactions": "expire_interactions({they})",
    "why of what was talked to": "why({talk})",
}


@pytest.mark.rule("AW37", "PW29", "PW48", "G9", "GW2", "GW28", "O6")
async def test_single_steps_read_no_backlog(backlog, hire, touches, job):
    worker, idler = await hire(), await hire(instance="beta")
    failed, run = await job(priority=1000), await worker.claim_one()
    while run["job_id"] != failed:
        run = await worker.claim_one()
    await worker.fail(run)
    run = await worker.claim_one()
    await worker.ship((run, "stdout", 0, b"abc"), (run, "stdout", 3, b"def"))
    await job(concurrency_key="warm")
    listener = await hire(instance="gamma", queues=["talk"])
    talk = await listener.claim_job(await job(agent="talker", queue="talk"))
    asking = ("permission", {"id": 1}, "May I?")
    await said(backlog, talk, asking, ("turn", {"turn": 1, "state": "x"}))
    lost = await backlog.fetchrow("select id, token from leasehold.runs where outcome = 'lost' limit 1")
    names = {
        "me": f"{worker.id}, '{worker.token}'",
        "worker": worker.id,
        "idler": f"{idler.id}, '{idler.token}'",
        "run": f"{run['run_id']}, '{run['run_token']}'",
        "runs": f"array[{run['run_id']}::bigint], array['{run['run_token']}'::uuid]",
        "id": f"{run['run_id']}::bigint",
        "run_token": f"'{run['run_token']}'::uuid",
        "job": run["job_id"],
        "lost": f"{lost['id']}, '{lost['token']}'",
        "lost_id": f"{lost['id']}::bigint",
        "lost_token": f"'{lost['token']}'::uuid",
        "failed": failed,
        "they": f"{listener.id}, '{listener.token}'",
        "talk": talk["job_id"],
        "talk_id": f"{talk['run_id']}::bigint",
        "talk_run": f"{talk['run_id']}, '{talk['run_token']}'",
        "talks": f"array[{talk['run_id']}::bigint], array['{talk['run_token']}'::uuid]",
        "turn": await backlog.fetchval("select leasehold.steer($1, 'x')", talk["job_id"]),
        "asked": (await asked(backlog))["id"],
    }
    wrong = {}
    for step, call in STEPS.items():
        _, read = await touches(f"select * from leasehold.{call.format(**names)}", keep=False)
        wrong |= {(step, table): read[table] for table in BIG if read[table][0] > 0 or read[table][1] > 40}
    assert not wrong, wrong


async def test_a_page_of_changes_reads_a_page(backlog, touches, eventually):
    await eventually(backlog, "select count(*) from leasehold.changes(null, 100)", expected=100)
    rows, read = await touches("select * from leasehold.changes(null, 100)")
    assert len(rows) == 100
    assert read["events"][0] == 0 and read["events"][1] <= 150, read


@pytest.mark.rule("G25")
async def test_renewals_stay_in_place(sql, worker):
    for _ in range(200):
        await worker.renew()
    await sql.execute("select pg_stat_force_next_flush()")
    assert await sql.fetchval(
        "select n_tup_hot_upd >= n_tup_upd * 0.9 from pg_stat_user_tables where relname = 'workers'"
    )


SESSIONS = """(tenant, agent, adapter, key, conversation, updated_at, kind, host_id, keeper_id, path, expires_at)
    select 't', 'fixer', 'command', 'k' || g, g, leasehold.clock() - interval '1 day', k.kind, 'h', 'k', 'sessions/k' || g,
           case k.kind when 'directory' then leasehold.clock() + (g - 2000) * interval '1 minute' end
      from generate_series(1, 4000) g cross join lateral (select case when g % 2 = 0 then 'directory' else 'evicted' end) k (kind)"""
WORKSPACES = """(tenant, host_id, keeper_id, kind, source, agent, key, path, status, used_at, removed_at)
    select 't', 'h', 'k', 'session', 'session', 'fixer', 'job:' || g, 'workspaces/conversations/' || g, k.status,
           leasehold.clock() - interval '1 day', case k.status when 'removed' then leasehold.clock() - interval '1 day' end
      from generate_series(1, 4000) g cross join lateral (select case when g % 2 = 0 then 'free' else 'removed' end) k (status)"""
SAID = ("artifacts", "workspace_changes")
DAYS = """(folded, day, tenant, agent, account, provider, model, runs, input_tokens, output_tokens, cached_tokens, unpriced)
    select true, date '2020-01-01' + g, 't', 'fixer', 'x', 'p', 'm', 1, 1, 1, 1, 0 from generate_series(1, 2000) g"""


async def test_a_sweep_reads_what_it_removes_and_no_more(backlog, hire, touches, sql):
    worker = await hire()
    await sql.execute("update leasehold.retention set keep = '0', batch = 8")
    await sql.execute("""insert into leasehold.removals (host_id, keeper_id, what, path, done_at, wanted_at)
        select 'h', 'k' || g % 20, 'session', 'sessions/s' || g, case when g % 2 = 0 then leasehold.clock() - interval '1 day' end,
               leasehold.clock() - interval '1 day' from generate_series(1, 4000) g""")
    await sql.execute("""insert into leasehold.wakeups (tenant, agent, actor, disposition, job_id, at, decided_at)
        select 't', 'fixer', 'x', case when g % 2 = 0 then 'accepted' else 'skipped' end, case when g % 2 = 0 then g end,
               leasehold.clock() - interval '1 day', leasehold.clock() from generate_series(1, 4000) g""")
    await sql.execute(f"insert into leasehold.sessions {SESSIONS}")
    await sql.execute("""insert into leasehold.threads (tenant, thread, last_activity_at, updated_at)
        select 't', 'u' || g, leasehold.clock() - interval '1 day', leasehold.clock() from generate_series(1, 4000) g""")
    await sql.execute(f"insert into leasehold.usage_days {DAYS}")
    ended = "from leasehold.jobs j where j.finished_at is not null"
    await sql.execute(
        f"""insert into leasehold.messages (tenant, job_id, source, role) select j.tenant, j.id, 'worker', 'user' {ended}"""
    )
    await sql.execute(f"""insert into leasehold.artifacts (tenant, job_id, run_id, key, kind, title, content, content_type, bytes, sha256)
        select j.tenant, j.id, j.id, '', 'other', '', '', 'text/plain', 0, '' {ended}""")
    await sql.execute(f"""insert into leasehold.workspace_changes (tenant, job_id, run_id, source, path, change_type)
        select j.tenant, j.id, j.id, 'agent', 'a', 'added' {ended}""")
    await sql.execute(f"insert into leasehold.workspaces {WORKSPACES}")
    wrong, after = {}, None
    for turn in range(2):
        after = None
        while True:
            rows, read = await touches("select * from leasehold.sweep_retention($1, $2, $3)", *worker.me, after)
            if not rows:
                break
            after = rows[0]["what"]
            assert after in ("workers", "events") or rows[0]["removed"] >= 8, (turn, rows)
            wrong |= {
                (turn, after, table): read[table]
                for table in (*BIG, "removals", "wakeups", "sessions", "threads", "usage_days", "workspaces", *SAID)
                if read[table][0] > 0 or read[table][1] > 200
            }
    assert not wrong, wrong


async def test_deleting_reads_no_backlog(backlog, touches, sql):
    job = await sql.fetchval("select id from leasehold.jobs where status = 'succeeded' limit 1")
    wrong = {}
    calls = (f"delete_job({job})", "delete_old_jobs(null, 10)")
    await sql.execute(
        "insert into leasehold.tenant_logins (login, tenant) select session_user, 't' || g from generate_series(0, 3) g"
    )
    for call in calls:
        _, read = await touches(f"select leasehold.{call}")
        wrong |= {(call, table): read[table] for table in BIG if read[table][0] > 0 or read[table][1] > 120}
    assert not wrong, wrong


async def test_taking_removals_reads_what_it_takes(backlog, hire, touches, sql):
    worker = await hire()
    await sql.execute("""insert into leasehold.removals (host_id, keeper_id, what, path, next_at)
        select w.host_id, case when g % 2 = 0 then w.keeper_id else 'other' end, 'session', 'sessions/s' || g,
               leasehold.clock() + case when g <= 40 then interval '-1 minute' else '1 day' end
          from leasehold.workers w, generate_series(1, 4000) g where w.id = $1""", worker.id)  # fmt: skip
    rows, read = await touches("select * from leasehold.take_removals($1, $2)", *worker.me)
    assert len(rows) == 20 and read["removals"][0] == 0 and read["removals"][1] <= 100, read["removals"]
    assert_untouched(read, at_most=60)
