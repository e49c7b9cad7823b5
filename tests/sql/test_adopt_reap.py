"""What becomes of runs whose worker is gone: adopted by the next life of its instance, or reaped by anybody."""

import asyncio
import random
from datetime import timedelta

import pytest
from asyncpg import PostgresError
from sql.people import Clock


async def claimed(worker, job, count=1, **columns):
    for _ in range(count):
        await job(**columns)
    return await worker.claim(count)


async def test_a_new_life_adopts_what_its_keeper_still_holds(sql, worker, hire, job, story, sane):
    """Rule 8: one transaction closes the older life and moves its runs."""
    kept, gone = await claimed(worker, job, 2)
    successor = await hire()
    assert await successor.adopt([kept]) == [("adopted", kept["run_id"]), ("ended", gone["run_id"])]
    assert await sql.fetchval("select state from leasehold.workers where id = $1", worker.id) == "closed"
    assert await story(kept["job_id"]) == ["queued", "started", "adopted"]
    assert await story(gone["job_id"]) == ["queued", "started", "lost"]
    assert await sql.fetchval("select reason from leasehold.runs where id = $1", gone["run_id"]) == "daemon_restart"
    assert (await successor.finish(kept))["disposition"] == "settled"
    await sane()


@pytest.mark.rule("S42", "SW3", "A35", "AW1", "X13")
async def test_the_old_life_can_do_nothing_for_an_adopted_run(worker, hire, job, refused):
    [run] = await claimed(worker, job)
    await (await hire()).adopt([run])
    async with refused("LH011", "belongs to worker"):
        await worker.finish(run)
    async with refused("LH011"):
        await worker.start(run)
    async with refused("LH012"):
        await worker.renew([run])


@pytest.mark.rule("AW5")
async def test_adoption_can_be_repeated(worker, hire, job, story):
    kept, _ = await claimed(worker, job, 2)
    successor = await hire()
    await successor.adopt([kept])
    assert await successor.adopt([kept]) == [("adopted", kept["run_id"])]
    assert await story(kept["job_id"]) == ["queued", "started", "adopted"]
    await claimed(successor, job)
    assert await successor.adopt([kept]) == [("adopted", kept["run_id"])]


async def test_another_boot_says_so(sql, worker, hire, job):
    [run] = await claimed(worker, job)
    await (await hire(boot="boot-2")).adopt()
    assert await sql.fetchval("select reason from leasehold.runs where id = $1", run["run_id"]) == "host_reboot"


@pytest.mark.rule("PW2")
@pytest.mark.parametrize("life", [{"keeper": "keeper-2"}, {"instance": "beta"}])
async def test_a_cloned_image_or_another_instance_is_left_alone(sql, worker, hire, job, life):
    """Rule 9."""
    await claimed(worker, job)
    assert await (await hire(**life)).adopt() == []
    assert await sql.fetchval("select state from leasehold.workers where id = $1", worker.id) == "alive"


async def test_a_late_adoption_of_an_older_life_is_refused(worker, hire, job, refused):
    """Rule 8: D1's adoption commits after D2 has taken over and claimed."""
    first, second = await hire(), await hire()
    await second.adopt()
    [run] = await claimed(second, job)
    async with refused("LH012", f"worker {first.id} is closed"):
        await first.adopt()
    assert [row["what"] for row in await second.renew([run])] == ["renewed"]


async def test_a_kept_run_with_another_token_is_not_the_same_run(worker, hire, job):
    """Rule 19: a failover gave its id again."""
    [run] = await claimed(worker, job)
    stranger = {"run_id": run["run_id"], "run_token": worker.token}
    assert await (await hire()).adopt([stranger]) == [("ended", run["run_id"])]


async def test_several_lives_are_taken_over_at_once(worker, hire, job):
    [first] = await claimed(worker, job)
    middle = await hire()
    [second] = await claimed(middle, job)
    last = await hire()
    assert await last.adopt([first, second]) == [("adopted", first["run_id"]), ("adopted", second["run_id"])]


async def test_adopting_an_expired_life_that_nobody_reaped(worker, hire, job, clock):
    [run] = await claimed(worker, job)
    await clock.forward(hours=1)
    assert await (await hire()).adopt([run]) == [("adopted", run["run_id"])]


@pytest.mark.rule("S121", "SW2", "A32", "A88", "AW2", "AW3", "P80", "P89", "GW16", "OW6", "X13", "X14")
async def test_a_job_whose_worker_is_reaped_runs_elsewhere(sql, worker, hire, job, look, story, clock, sane):
    [run] = await claimed(worker, job)
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta")
    [row] = await reaper.reap()
    assert tuple(row) == (run["run_id"], run["job_id"], worker.id, "alpha", "queued")
    again = await reaper.claim_one()
    assert (again["job_id"], again["attempt"]) == (run["job_id"], 2)
    job_row = await look(run["job_id"])
    assert (job_row["attempts"], job_row["interruptions"], job_row["losses"]) == (0, 1, 1)
    assert await story(run["job_id"]) == ["queued", "started", "lost", "started"]
    message = await sql.fetchval("select message from leasehold.events where kind = 'lost'")
    assert message == f"worker {worker.id} (alpha) stopped renewing its lease"
    await sane()


@pytest.mark.rule("PW3")
async def test_a_worker_that_has_renewed_since_it_was_watched_is_not_reaped(worker, hire, job, clock):
    """Rule 17: an expired lease is not enough, the database's clock may have stepped."""
    await claimed(worker, job)
    reaper = await hire(instance="beta", lease=timedelta(hours=1))
    await clock.forward(seconds=60)
    await worker.renew()
    await clock.forward(seconds=121)
    (renewals, expired) = (await reaper.watch())[worker.id]
    assert expired
    assert await reaper.reap({worker.id: (renewals - 1, True)}) == []
    assert len(await reaper.reap({worker.id: (renewals, True)})) == 1


@pytest.mark.rule("A31", "PW2")
async def test_a_suspect_that_is_not_expired_is_not_reaped(worker, hire, job, clock):
    await claimed(worker, job)
    reaper = await hire(instance="beta")
    assert await reaper.reap({worker.id: (0, True)}) == []


@pytest.mark.rule("PW1", "X14")
async def test_queued_jobs_are_never_reaped_and_a_reaper_spares_itself(sql, worker, job, look, clock):
    born = await job()
    await clock.forward(seconds=60)
    assert await worker.reap({worker.id: (0, True)}) == []
    assert (await look(born))["status"] == "queued"


@pytest.mark.rule("S104", "S121", "X14")
async def test_a_job_that_keeps_losing_its_worker_stops_at_the_cap(sql, hire, fixer, clock, job, look, story):
    born = await job(max_attempts=10)
    for number in range(3):
        victim, reaper = await hire(instance=f"v{number}"), await hire(instance=f"r{number}")
        assert (await victim.claim_one())["job_id"] == born
        await clock.forward(seconds=60)
        await reaper.renew()
        await clock.forward(seconds=61)
        await reaper.reap()
    row = await look(born)
    assert (row["status"], row["reason"], row["losses"], row["attempts"]) == ("failed", "crash_cap", 3, 0)
    assert await story(born) == ["queued", "started", "lost", "started", "lost", "started", "failed"]


async def test_reaping_a_run_whose_cancel_was_asked_for_ends_the_job_cancelled(sql, worker, hire, job, look, clock):
    """Rule 16."""
    [run] = await claimed(worker, job)
    await sql.execute("select leasehold.cancel($1)", run["job_id"])
    await clock.forward(seconds=121)
    [row] = await (await hire(instance="beta")).reap()
    assert row["job_status"] == (await look(run["job_id"]))["status"] == "cancelled"


async def test_live_runs_of_a_worker_lost_before_are_taken_too(sql, worker, hire, job, clock):
    """Rule 12: the reaper before may have died half way."""
    runs = await claimed(worker, job, 60)
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta")
    assert len(await reaper.reap()) == 50
    assert len(await reaper.reap({})) == 10
    assert await reaper.reap({}) == []
    assert len(runs) == 60


async def test_an_open_transaction_on_a_job_does_not_stop_the_reaper(sql, worker, hire, job, clock, connect):
    held, free = await claimed(worker, job, 2)
    await clock.forward(seconds=121)
    reaper, user = await hire(instance="beta"), await connect()
    async with user.transaction():
        await user.execute("select leasehold.cancel($1)", held["job_id"])
        await sql.execute("set statement_timeout = '2s'")
        assert [row["run_id"] for row in await reaper.reap()] == [free["run_id"]]
    assert [row["run_id"] for row in await reaper.reap({})] == [held["run_id"]]


async def test_jobs_that_somebody_holds_fill_no_place_of_those_that_nobody_does(sql, worker, hire, job, clock, connect):
    *held, free = sorted(await claimed(worker, job, 51), key=lambda run: run["job_id"])
    await clock.forward(seconds=121)
    reaper, user = await hire(instance="beta"), await connect()
    async with user.transaction():
        jobs = [run["job_id"] for run in held]
        await user.execute("select from leasehold.jobs where id = any ($1) order by id for update", jobs)
        assert [row["run_id"] for row in await reaper.reap()] == [free["run_id"]]
    assert len(await reaper.reap({})) == 50


@pytest.mark.rule("PW4")
@pytest.mark.parametrize("by", ["reap", "adopt"])
async def test_a_run_that_its_worker_finishes_in_the_last_moment_keeps_its_verdict(
    sql, worker, hire, job, clock, connect, look, eventually, by
):
    held, finished = await claimed(worker, job, 2)
    await clock.forward(seconds=121)
    user, taker = await connect(), await connect()
    await Clock(taker).set(clock.now)
    successor = await hire(taker, instance="beta" if by == "reap" else "alpha")
    async with user.transaction():  # the taker has listed both runs, and waits for the first
        await user.execute("select from leasehold.heads where job_id = $1 for update", held["job_id"])
        taking = asyncio.create_task(successor.reap() if by == "reap" else successor.adopt())
        await eventually(
            sql,
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            expected=1,
        )
        await worker.finish(finished)
    assert len(await taking) == 1
    assert [(await look(run["job_id"]))["status"] for run in (held, finished)] == ["queued", "succeeded"]


async def test_a_reaper_without_a_lease_reaps_nothing(worker, hire, clock, refused):
    reaper = await hire(instance="beta")
    await clock.forward(seconds=121)
    async with refused("LH012"):
        await reaper.reap()


@pytest.mark.rule("A32", "PW4", "PW6")
@pytest.mark.race
async def test_reapers_finishers_and_a_renewer_end_every_run_once(sql, fixer, hire, connect, sane):
    owner = {}
    workers = [await hire(instance=f"w{n}") for n in range(4)]
    await sql.execute("""insert into leasehold.jobs (agent, prompt, concurrency_key)
        select 'fixer', 'x', case when g <= 90 then 'k' || g % 30 end from generate_series(1, 120) g""")
    for worker in workers:
        for run in await worker.claim(15):
            owner[run["run_id"]] = (worker, run)
    await sql.execute(
        "update leasehold.workers set lease_expires_at = leasehold.clock() - interval '1 ms' where id <> $1",
        workers[3].id,
    )
    reapers = [await hire(await connect(), instance=f"r{n}") for n in range(4)]
    seen, reaped, settled = await reapers[0].watch(), [], []

    async def reap(reaper):
        for _ in range(4):
            reaped.extend(row["run_id"] for row in await reaper.reap(seen))

    async def finish(connection, number):
        for _, (worker, run) in random.Random(number).sample(sorted(owner.items()), 25):
            try:
                answer = await worker.finish(run, sql=connection)
                settled.extend([run["run_id"]] * (answer["disposition"] == "settled"))
            except PostgresError as error:
                assert error.sqlstate == "LH010", error

    async def renew(connection):
        for worker in workers[:3]:
            worker.sql = connection
            with pytest.raises(PostgresError, match=r"lease of|is lost"):
                await worker.renew()

    finishers = [await connect() for _ in range(3)]
    await asyncio.gather(
        *(reap(r) for r in reapers), *(finish(c, n) for n, c in enumerate(finishers)), renew(await connect())
    )
    while rows := await reapers[0].reap(seen):
        reaped.extend(row["run_id"] for row in rows)
    assert len(reaped) == len(set(reaped)) and len(settled) == len(set(settled)) and not set(reaped) & set(settled)
    assert (
        await sql.fetchval("""select count(*) from leasehold.runs r join leasehold.workers w on w.id = r.worker_id
        where w.state = 'lost' and r.ended_at is null""")
        == 0
    )
    await sane()


@pytest.mark.parametrize("ended_by", ["crash_cap", "cancelled"])
async def test_a_late_outcome_of_a_run_whose_loss_ended_its_job_leaves_a_retry_alone(
    sql, fixer, clock, hire, job, look, sane, ended_by
):
    born = await job(max_losses=1)
    worker, reaper = await hire(), await hire(instance="beta")
    run = await worker.claim_one()
    if ended_by == "cancelled":
        await sql.execute("select leasehold.cancel($1)", born)
    await clock.forward(minutes=1)
    await reaper.renew()
    await clock.forward(minutes=1)
    await reaper.reap()
    assert (await look(born))["reason"] == ended_by
    await sql.execute("select leasehold.retry($1)", born)
    assert (await worker.finish(run))["disposition"] == "late"
    assert (await look(born))["status"] == "queued"
    await sane()
