"""The bell: rings once for whoever sleeps, also in the awkward moments; and never for nothing."""

import asyncio

import pytest

INSERT = "insert into leasehold.jobs (agent, prompt) values ('fixer', 'x')"


@pytest.fixture
async def sleeper(connect):
    """A worker that arms the bell, looks, and sleeps; `heard` collects its notices."""

    class Sleeper:
        def __init__(self, connection):
            self.connection, self.heard = connection, []

        async def look(self):
            await self.connection.execute("select leasehold.listen_again()")
            return await self.connection.fetchval("select count(*) from leasehold.jobs")

        async def notices(self):
            await asyncio.sleep(0.05)
            await self.connection.fetchval("select 1")
            return len(self.heard)

    sleeper = Sleeper(await connect())
    await sleeper.connection.add_listener("leasehold", lambda *notice: sleeper.heard.append(notice[3]))
    return sleeper


@pytest.mark.rule("GW16", "X1", "X6")
async def test_an_insert_rings_whoever_sleeps_with_an_empty_payload(sql, fixer, sleeper):
    await sleeper.look()
    await sql.execute(INSERT)
    assert await sleeper.notices() == 1
    assert sleeper.heard == [""]


async def test_nobody_asleep_nobody_rung(sql, fixer, sleeper):
    await sql.execute(INSERT)
    assert await sleeper.notices() == 0


@pytest.mark.rule("X7")
async def test_many_inserts_ring_once_until_somebody_has_looked(sql, fixer, sleeper):
    await sleeper.look()
    for _ in range(20):
        await sql.execute(INSERT)
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 10000)")
    assert await sleeper.notices() == 1
    await sleeper.look()
    await sql.execute(INSERT)
    assert await sleeper.notices() == 2


@pytest.mark.rule("X6")
async def test_a_rolled_back_insert_rings_nobody(sql, fixer, sleeper):
    await sleeper.look()
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(INSERT)
    await transaction.rollback()
    assert await sleeper.notices() == 0
    await sql.execute(INSERT)
    assert await sleeper.notices() == 1


async def test_a_rolled_back_savepoint_does_not_swallow_the_ring_of_what_follows(sql, fixer, sleeper):
    await sleeper.look()
    async with sql.transaction():
        inner = sql.transaction()
        await inner.start()
        await sql.execute(INSERT)
        await inner.rollback()
        await sql.execute(INSERT)
    assert await sleeper.notices() == 1


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_inserted_before_the_worker_goes_to_sleep_and_committed_after(sql, fixer, sleeper, connect, isolation):
    producer = await connect()
    async with producer.transaction(isolation=isolation):
        await producer.execute(INSERT)
        assert await sleeper.look() == 0
    assert await sleeper.notices() == 1


async def slow_commits(sql):
    await sql.execute("""
        create function leasehold.slow() returns trigger language plpgsql as $$
        begin perform pg_sleep(coalesce(nullif(current_setting('leasehold.slow', true), '')::float8, 0)); return null; end $$;
        create constraint trigger z_slow after insert on leasehold.arrivals deferrable initially deferred
          for each row execute function leasehold.slow()""")


@pytest.mark.rule("X6")
async def test_the_window_between_gate_and_commit_is_closed_by_a_second_look(sql, fixer, sleeper, connect):
    await slow_commits(sql)
    producer = await connect()
    await producer.execute("set leasehold.slow = '0.3'")
    committing = asyncio.create_task(producer.execute(INSERT))
    await asyncio.sleep(0.1)  # the gate was read: nobody asleep
    assert await sleeper.look() == 0
    await committing
    assert await sleeper.notices() == 0
    assert await sleeper.look() == 1


async def test_two_producers_and_one_ring(sql, fixer, sleeper, connect):
    await slow_commits(sql)
    quick, slow = await connect(), await connect()
    await slow.execute("set leasehold.slow = '0.3'")
    await sleeper.look()
    await quick.execute(INSERT)
    committing = asyncio.create_task(slow.execute(INSERT))
    await asyncio.sleep(0.1)
    assert await sleeper.notices() == 1 and await sleeper.look() == 1
    await committing
    assert await sleeper.look() == 2  # the second look


@pytest.mark.rule("X6")
async def test_a_client_that_forces_constraints_early_only_costs_a_poll(sql, fixer, sleeper):
    async with sql.transaction():
        await sql.execute("set constraints all immediate")
        await sql.execute(INSERT)
        await sleeper.look()
    assert await sleeper.look() == 1


@pytest.mark.parametrize(
    ("limit", "rings"),
    [
        (None, 0),
        ("update leasehold.agents set max_running = 9", 1),
        ("insert into leasehold.tenants (name, max_running) values ('default', 9)", 1),
        ("insert into leasehold.queues (name, max_running) values ('default', 9)", 1),
    ],
)
async def test_the_end_of_a_run_rings_only_if_it_makes_room_for_others(sql, worker, job, sleeper, limit, rings):
    """Two thousand short jobs on two daemons must not be two thousand notices."""
    if limit:
        await sql.execute(limit)
    await job()
    run = await worker.claim_one()
    await sleeper.look()
    await worker.finish(run)
    assert await sleeper.notices() == rings


@pytest.mark.parametrize("what", ["cancel", "retry", "resume_agent", "enqueue"])
async def test_a_call_in_an_open_transaction_does_not_swallow_the_rings_of_others(
    sql, fixer, job, sleeper, connect, what
):
    first, _, user = await job(concurrency_key="k"), await job(concurrency_key="k"), await connect()
    if what == "retry":
        await sql.execute("select leasehold.cancel($1)", first)
    await sleeper.look()
    async with user.transaction():
        argument = {"resume_agent": "'fixer'", "enqueue": "'fixer', 'x'"}.get(what, first)
        await user.execute(f"select leasehold.{what}({argument})")
        await sql.execute(INSERT)
        assert await sleeper.notices() == 1
        await sleeper.look()
    assert await sleeper.notices() == 2


async def test_two_sleepers_are_both_woken(sql, fixer, sleeper, connect):
    other, heard = await connect(), []
    await other.add_listener("leasehold", lambda *notice: heard.append(1))
    await sleeper.look()
    await other.execute("select leasehold.listen_again()")
    await sql.execute(INSERT)
    assert await sleeper.notices() == 1
    await other.fetchval("select 1")
    assert heard == [1]


@pytest.mark.rule("P41")
@pytest.mark.parametrize(
    "what",
    [
        "finish",
        "requeue",
        "cancel of a keyed job",
        "retry",
        "resume",
        "limit raised",
        "tenant resumed",
        "queue resumed",
        "reap",
        "adopt",
        "enqueue",
    ],
)
async def test_every_path_that_makes_work_or_room_rings(sql, worker, hire, job, sleeper, clock, what):
    await sql.execute("insert into leasehold.tenants (name, paused) values ('acme', true)")
    await sql.execute("insert into leasehold.queues (name, paused) values ('slow', true)")
    first, _ = await job(concurrency_key="k", max_attempts=2), await job(concurrency_key="k")
    if what != "cancel of a keyed job":
        run = await worker.claim_one()
    if what == "retry":
        await sql.execute("select leasehold.cancel($1)", first)
        await worker.fail(run)
    if what == "reap":
        await clock.forward(seconds=121)
    other = await hire(instance="beta" if what == "reap" else "alpha")
    await sleeper.look()
    match what:
        case "finish":
            await worker.finish(run)
        case "requeue":
            await worker.finish(run, "interrupted", "stopped")
        case "cancel of a keyed job" | "retry":
            await sql.execute(f"select leasehold.{what.split()[0]}({first})")
        case "resume":
            await sql.execute("select leasehold.resume_agent('fixer')")
        case "limit raised":
            await sql.execute("update leasehold.agents set max_running = 5")
        case "tenant resumed":
            await sql.execute("update leasehold.tenants set paused = false")
        case "queue resumed":
            await sql.execute("update leasehold.queues set paused = false")
        case "reap":
            assert await other.reap()
        case "adopt":
            assert await other.adopt()
        case "enqueue":
            await sql.execute("select leasehold.enqueue('fixer', 'x')")
    assert await sleeper.notices() == 1


async def test_a_claim_that_cannot_look_at_a_key_yet_rings_for_nobody_and_the_commit_that_frees_it_does(
    sql, fixer, hire, sleeper, connect
):
    worker, producer = await hire(), await connect()
    key = "insert into leasehold.jobs (agent, prompt, concurrency_key) values ('fixer', 'x', 'k')"
    async with producer.transaction():
        await producer.execute(key)  # it holds the key until it commits
        await sql.execute(key)  # so this one is born deferred
        await worker.claim(0)
        await worker.claim(1)
        await sleeper.look()
        for _ in range(3):
            assert await worker.claim(1) == []
        assert await sleeper.notices() == 0, "each claim rings for the next one"
    assert await sleeper.notices() == 1
    assert len(await worker.claim(9)) == 1
