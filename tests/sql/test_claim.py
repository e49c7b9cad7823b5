"""The claim: what it gives, in which order, and which limits it keeps."""

import asyncio
from datetime import timedelta

import pytest


@pytest.mark.rule(
    "S2", "S73", "S74", "S116", "A31", "A88", "AW6", "P46", "P47", "P86", "G24", "O10", "O22", "O35", "OW2", "X10"
)
async def test_a_claim_opens_one_run_for_each_job(sql, worker, job, look, story, clock, sane):
    jobs = [await job() for _ in range(3)]
    runs = await worker.claim(2)
    assert [run["job_id"] for run in runs] == jobs[:2]
    assert [run["attempt"] for run in runs] == [1, 1]
    assert len({run["run_token"] for run in runs}) == 2
    row = await look(jobs[0])
    assert (row["status"], row["started_at"]) == ("running", clock.now)
    assert await story(jobs[0]) == ["queued", "started"]
    assert [run["job_id"] for run in await worker.claim()] == jobs[2:]
    assert await worker.claim() == []
    await sane()


async def test_no_slots_no_jobs(worker, job):
    await job()
    assert await worker.claim(0) == await worker.claim(-1) == []


@pytest.mark.rule("S73", "AW6", "GW29", "OW10", "X11")
async def test_inside_a_lane_priority_then_time_then_id(worker, job, clock):
    low, late, first, second, high = (
        await job(), await job(run_at=clock.now - timedelta(minutes=1)), await job(run_at=clock.now - timedelta(minutes=2)),
        await job(run_at=clock.now - timedelta(minutes=2)), await job(priority=9),
    )  # fmt: skip
    assert [(await worker.claim_one())["job_id"] for _ in range(5)] == [high, first, second, late, low]


@pytest.mark.rule("S75", "OW2")
async def test_the_same_claim_answers_the_bodies_in_a_second_call(sql, hire, clock, job):
    await sql.execute("""insert into leasehold.agents (name, command, env, workspace, launcher, limits, total_timeout)
        values ('fixer', '{sh,-c,x}', '{"A": "b"}', '/srv', '{nice}', '{"pids_max": 5}', '1 h')""")
    worker = await hire()
    await job(prompt="p" * 1000, payload='{"a": 1}', tenant="acme", queue="slow")
    run = await worker.claim_one()
    [body] = await worker.read([run])
    assert {key: body[key] for key in dict(run)} == dict(run)
    assert [body[c] for c in ("tenant", "queue", "agent", "adapter", "command", "env", "workspace", "launcher", "prompt", "payload",
                              "limits", "total_timeout", "status", "cancel_requested", "stdout_shipped", "events_mark")] == [
        "acme", "slow", "fixer", "command", ["sh", "-c", "x"], '{"A": "b"}', "/srv", ["nice"], "p" * 1000, '{"a": 1}',
        '{"pids_max": 5}', timedelta(hours=1), "starting", False, 0, -1,
    ]  # fmt: skip
    assert await (await hire(instance="beta")).read([run]) == []


@pytest.mark.rule("X12")
async def test_a_job_ahead_of_its_time_waits_and_the_worker_knows_how_long(worker, job, clock):
    born = await job(run_at=clock.now + timedelta(seconds=30))
    assert await worker.claim() == []
    assert await worker.next_due() == timedelta(seconds=30)
    await clock.forward(seconds=31)
    assert await worker.next_due() == timedelta(0)
    assert [run["job_id"] for run in await worker.claim()] == [born]
    assert await worker.next_due() is None


@pytest.mark.rule("P45", "P65", "PW14", "OW19")
@pytest.mark.parametrize(
    ("limit", "columns"),
    [
        ("update leasehold.agents set max_running = 2 where name = 'fixer'", {}),
        ("insert into leasehold.tenants (name, max_running) values ('acme', 2)", {"tenant": "acme"}),
        ("insert into leasehold.queues (name, max_running) values ('slow', 2)", {"queue": "slow"}),
    ],
)
async def test_a_limit_is_kept_within_and_across_claims(sql, worker, hire, job, sane, limit, columns):
    await sql.execute(limit)
    for _ in range(5):
        await job(**columns)
    runs = await worker.claim()
    assert len(runs) == 2
    assert await (await hire(instance="beta")).claim() == []
    await worker.finish(runs[0])
    assert len(await worker.claim()) == 1
    await sane()


async def test_a_full_tenant_does_not_hold_up_the_others(sql, worker, job):
    await sql.execute("insert into leasehold.tenants (name, max_running) values ('acme', 1)")
    for _ in range(20):
        await job(tenant="acme")
    other = await job(tenant="globex")
    assert other in [run["job_id"] for run in await worker.claim(2)]
    assert await worker.claim() == []


@pytest.mark.rule("SW35", "PW50")
@pytest.mark.parametrize(
    ("pause", "resume"),
    [
        (
            "insert into leasehold.tenants (name, paused) values ('acme', true)",
            "update leasehold.tenants set paused = false",
        ),
        (
            "insert into leasehold.queues (name, paused) values ('slow', true)",
            "update leasehold.queues set paused = false",
        ),
        ("update leasehold.agents set status = 'paused'", "update leasehold.agents set status = 'enabled'"),
    ],
)
async def test_pauses_hold(sql, worker, job, pause, resume):
    await job(tenant="acme", queue="slow")
    await sql.execute(pause)
    assert await worker.claim() == []
    await sql.execute(resume)
    assert len(await worker.claim()) == 1


async def test_a_worker_hears_only_its_queues(hire, fixer, clock, job):
    slow, any_ = await hire(queues=["slow"]), await hire(instance="beta")
    fast_job, slow_job = await job(queue="fast"), await job(queue="slow")
    ahead = await job(queue="fast", run_at=clock.now + timedelta(seconds=5))
    assert [run["job_id"] for run in await slow.claim()] == [slow_job]
    assert await slow.next_due() is None
    assert [run["job_id"] for run in await any_.claim()] == [fast_job]
    assert await any_.next_due() == timedelta(seconds=5)
    assert ahead


async def test_a_newcomer_does_not_wait_behind_a_backlog(sql, worker, job):
    await sql.execute(
        "insert into leasehold.jobs (tenant, agent, prompt) select 't' || g % 20, 'fixer', 'x' from generate_series(1, 400) g"
    )
    for _ in range(5):
        await worker.claim(8)
    newcomer = await job(tenant="newcomer", priority=0)
    assert newcomer in [run["job_id"] for run in await worker.claim(8)]


async def test_every_tenant_gets_its_share_and_weights_count(sql, worker):
    await sql.execute("insert into leasehold.tenants (name, weight) values ('heavy', 3)")
    await sql.execute("""insert into leasehold.jobs (tenant, agent, prompt)
        select t, 'fixer', 'x' from unnest(array['heavy', 'light', 'lighter']) t, generate_series(1, 100)""")
    for _ in range(10):
        await worker.claim(5)
    started = dict(await sql.fetch("select tenant, count(*) from leasehold.runs group by 1"))
    assert started == {"heavy": 30, "light": 10, "lighter": 10}


async def test_coming_back_often_gains_nothing(sql, worker, job):
    await sql.execute(
        "insert into leasehold.jobs (tenant, agent, prompt) select 'steady', 'fixer', 'x' from generate_series(1, 100)"
    )
    for _ in range(40):
        if not await sql.fetchval("select count(*) from leasehold.jobs where tenant = 'sly' and status = 'queued'"):
            await job(tenant="sly")
        await worker.claim(1)
    started = dict(await sql.fetch("select tenant, count(*) from leasehold.runs group by 1"))
    assert abs(started["steady"] - started["sly"]) <= 2, started


async def test_an_open_transaction_of_a_user_on_a_job_does_not_block_the_claim(worker, job, connect, sql):
    held, free, user = await job(), await job(), await connect()
    async with user.transaction():
        await user.execute("select leasehold.cancel($1)", held)
        await sql.execute("set statement_timeout = '2s'")
        assert [run["job_id"] for run in await worker.claim()] == [free]


@pytest.mark.rule("P45")
async def test_claims_come_one_after_the_other(worker, job, connect, hire, eventually, sql):
    await job()
    one, two = await connect(), await connect()
    other = await hire(two, instance="beta")
    async with one.transaction():
        await one.fetch("select * from leasehold.claim($1, $2, 1)", *worker.me)
        waiting = asyncio.create_task(other.claim())
        await eventually(
            sql,
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'",
            expected=1,
        )
    assert await waiting == []


async def test_a_claim_with_an_old_snapshot_is_refused(sql, worker, refused):
    async with refused("LH020", "claim needs read committed"), sql.transaction(isolation="repeatable_read"):
        await worker.claim()


@pytest.mark.rule("S41", "SW4", "A33", "X12")
async def test_a_worker_with_an_expired_or_closed_lease_claims_nothing(worker, job, hire, clock, refused):
    await job()
    await clock.forward(seconds=120)
    async with refused("LH012", f"the lease of worker {worker.id} has run out"):
        await worker.claim()
    async with refused("LH012"):
        await worker.renew()
    other = await hire()
    await other.adopt()
    async with refused("LH012", f"worker {worker.id} is closed"):
        await worker.claim()
    other.token = worker.token
    async with refused("LH012", f"worker {other.id} has another token"):
        await other.claim()
    other.id = 4711
    async with refused("LH012", "there is no worker 4711"):
        await other.claim()


@pytest.mark.rule("G24")
async def test_a_claim_in_flight_holds_up_whoever_wants_to_close_its_worker(
    worker, job, connect, hire, eventually, sql
):
    """Rule 12: otherwise a run of a closed worker could appear after everybody has looked."""
    await job()
    one, two = await connect(), await connect()
    successor = await hire(two)
    async with one.transaction():
        run = await one.fetchrow("select * from leasehold.claim($1, $2, 1)", *worker.me)
        closing = asyncio.create_task(successor.adopt([run]))
        await eventually(
            sql,
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            expected=1,
        )
        await one.fetch("select * from leasehold.renew($1, $2, $3, '2 min')", *worker.me, [run["run_id"]])
    assert await closing == [("adopted", run["run_id"])]


async def test_a_renewal_does_not_wait_for_a_claim_of_the_same_worker(worker, job, connect, sql):
    await job()
    one = await connect()
    async with one.transaction():
        await one.fetch("select * from leasehold.claim($1, $2, 1)", *worker.me)
        await sql.execute("set statement_timeout = '2s'")
        assert (await worker.renew())[0]["what"] == "renewed"


async def test_after_a_failover_claim_and_reap_are_closed_for_one_lease(sql, worker, hire, job, clock):
    """Rule 18: the new primary may not know the last claims."""
    lost = await hire(instance="beta", lease=timedelta(seconds=60))
    await job()
    [run] = await lost.claim()
    await sql.execute("update leasehold.cluster set timeline = 'FFFFFFFF'")
    await job()
    await clock.forward(seconds=90)
    seen = await worker.watch()
    assert seen[lost.id][1]
    assert await worker.claim() == [] == await worker.reap(seen)
    await worker.renew(lease=timedelta(hours=1))
    await clock.forward(seconds=119)
    assert await worker.claim() == [] == await worker.reap(seen)
    await clock.forward(seconds=2)
    assert [r["run_id"] for r in await worker.reap(seen)] == [run["run_id"]]
    assert len(await worker.claim()) == 2


async def test_a_claim_answers_ids_only_so_that_a_stopped_client_cannot_hold_it_up(worker, job):
    """Rows leave before the commit: with prompts in them, a full socket would keep the claim lock for ever."""
    prompt = "x" * 1_000_000
    for _ in range(5):
        await job(prompt=prompt)
    rows = await worker.claim()
    assert len(rows) == 5 and set(rows[0].keys()) == {"run_id", "run_token", "job_id", "attempt"}
