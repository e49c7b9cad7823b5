"""The queue clock: jobs that waited too long end, once, and without a run."""

import asyncio
from datetime import timedelta

import pytest


@pytest.fixture
async def hurried(sql, fixer):
    await sql.execute("update leasehold.agents set queue_timeout = '10 minutes'")


@pytest.fixture
async def patient(hurried, hire, clock):
    """A worker with a lease for the whole test."""
    return await hire(lease=timedelta(days=9))


async def test_a_job_that_waited_too_long_times_out_without_a_run(sql, patient, job, look, story, clock, sane):
    born = await job(max_attempts=5)
    await clock.forward(minutes=9, seconds=59)
    assert await patient.expire() == []
    await clock.forward(seconds=1)
    assert await patient.expire() == [born]
    assert await patient.expire() == []
    row = await look(born)
    assert (row["status"], row["reason"], row["attempts"], row["finished_at"]) == ("timed_out", "queue", 0, clock.now)
    assert "queue_timeout" in row["message"]
    assert await story(born) == ["queued", "timed_out"]
    assert await sql.fetchval("select count(*) from leasehold.runs") == 0
    assert await patient.claim() == []
    await sane()


async def test_without_a_queue_timeout_a_job_waits_for_ever(sql, patient, job, clock):
    await sql.execute("update leasehold.agents set queue_timeout = null")
    await job()
    await clock.forward(days=8)
    assert await patient.expire() == []


async def test_a_timeout_set_later_counts_from_the_next_time_a_job_is_queued(sql, patient, job, clock):
    await sql.execute("update leasehold.agents set queue_timeout = null")
    born = await job()
    await sql.execute("update leasehold.agents set queue_timeout = '1 hour'")
    await clock.forward(days=1)
    assert await patient.expire() == []
    await patient.finish(await patient.claim_one(), "interrupted", "daemon_restart")
    await clock.forward(minutes=61)
    assert await patient.expire() == [born]


async def test_the_wait_begins_when_its_time_has_come(patient, job, clock):
    born = await job(run_at=clock.now + timedelta(hours=1))
    await clock.forward(hours=1, minutes=9)
    assert await patient.expire() == []
    await clock.forward(minutes=2)
    assert await patient.expire() == [born]


async def test_the_wait_begins_anew_when_it_is_queued_again(sql, patient, job, clock):
    born = await job()
    run = await patient.claim_one()
    await clock.forward(hours=1)
    assert await patient.expire() == []
    await patient.finish(run, "interrupted", "daemon_restart")
    await clock.forward(minutes=9)
    assert await patient.expire() == []
    await clock.forward(minutes=2)
    assert await patient.expire() == [born]


@pytest.mark.rule("PW29")
async def test_waiting_behind_a_key_counts_too(sql, patient, job, look, clock, story, sane):
    first, second = await job(concurrency_key="k"), await job(concurrency_key="k")
    run = await patient.claim_one()
    await clock.forward(minutes=11)
    assert await patient.expire() == [second]
    assert await story(second) == ["deferred", "timed_out"]
    assert (await patient.finish(run))["job_status"] == "succeeded"
    await sane()
    assert first == run["job_id"]


async def test_the_end_of_a_queued_job_hands_its_key_on(sql, patient, job, look, clock, story, sane):
    first = await job(concurrency_key="k")
    await clock.forward(minutes=5)
    second = await job(concurrency_key="k")
    await clock.forward(minutes=6)
    assert await patient.expire() == [first]
    assert (await look(second))["status"] == "queued"
    assert await story(second) == ["deferred", "promoted"]
    await sane()


async def test_a_job_that_runs_is_never_expired_however_long_it_waited_before(patient, job, look, clock):
    born = await job()
    await clock.forward(minutes=9)
    run = await patient.claim_one()
    await clock.forward(hours=5)
    assert await patient.expire() == []
    assert (await look(born))["status"] == "running"
    assert (await patient.finish(run))["disposition"] == "settled"


@pytest.mark.parametrize("again", ["lost", "interrupted", "failed"])
async def test_a_job_that_ran_longer_than_its_queue_timeout_may_run_again(patient, job, look, clock, again):
    reason = {"lost": "worker_lost", "interrupted": "daemon_restart", "failed": "exit_code"}[again]
    born = await job(max_attempts=2)
    run = await patient.claim_one()
    await clock.forward(hours=1)
    await patient.finish(run, again, reason)
    assert await patient.expire() == []
    await clock.forward(minutes=1)
    assert (await patient.claim_one())["job_id"] == born


@pytest.mark.parametrize("ended", ["expired", "cancelled", "failed"])
async def test_a_retry_starts_the_clock_anew(sql, patient, job, clock, ended):
    born = await job()
    if ended == "failed":
        await patient.fail(await patient.claim_one())
    await clock.forward(hours=1)
    if ended == "cancelled":
        await sql.execute("select leasehold.cancel($1)", born)
    assert await patient.expire() == ([born] if ended == "expired" else [])
    await sql.execute("select leasehold.retry($1)", born)
    assert await patient.expire() == []
    await clock.forward(minutes=11)
    assert await patient.expire() == [born]


async def test_a_pause_does_not_stop_the_clock(sql, patient, job, clock):
    born = await job()
    await sql.execute("select leasehold.pause_agent('fixer')")
    await clock.forward(hours=1)
    assert await patient.expire() == [born]


async def test_a_backlog_is_ended_in_batches_the_longest_waiting_first(sql, patient, job, clock, sane):
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 130)")
    await clock.forward(minutes=5)
    young = await job()
    await clock.forward(minutes=30)
    first = await patient.expire()
    assert first == list(range(1, 101))
    assert await patient.expire() == [*range(101, 131), young]
    assert await patient.expire() == []
    await sane()


async def test_a_job_that_a_user_holds_is_left_for_the_next_time(sql, patient, job, clock, connect):
    held, free = await job(), await job()
    await clock.forward(hours=1)
    user = await connect()
    await sql.execute("set statement_timeout = '2s'")
    async with user.transaction():
        await user.execute("select from leasehold.jobs where id = $1 for update", held)
        assert await patient.expire() == [free]
    assert await patient.expire() == [held]


async def test_a_worker_without_a_lease_expires_nothing(hurried, worker, job, clock, refused):
    await job()
    await clock.forward(hours=1)
    async with refused("LH012"):
        await worker.expire()


@pytest.mark.race
async def test_claiming_and_expiring_at_once_give_every_job_one_fate(sql, hurried, hire, connect, sane):
    await sql.execute("update leasehold.agents set queue_timeout = '1 ms'")
    await sql.execute("""insert into leasehold.jobs (agent, prompt, concurrency_key)
        select 'fixer', 'x', case when g % 4 = 0 then 'k' || g % 16 end from generate_series(1, 400) g""")
    claimers = [await hire(await connect(), instance=f"c{n}") for n in range(2)]
    expirers = [await hire(await connect(), instance=f"e{n}") for n in range(2)]
    runs, ended = [], []

    async def claim(worker):
        while not done():
            for run in await worker.claim(3):
                runs.append(run["job_id"])
                await worker.finish(run)

    async def expire(worker):
        while not done():
            ended.extend(await worker.expire())
            await asyncio.sleep(0.001)

    def done():
        return len(runs) + len(ended) >= 400

    await asyncio.gather(*map(claim, claimers), *map(expire, expirers))
    assert sorted(runs + ended) == list(range(1, 401))
    fates = await sql.fetch("""
        select j.id from leasehold.jobs j
         where (j.status = 'timed_out') <> not exists (select from leasehold.runs r where r.job_id = j.id)
            or j.finished_at is null""")
    assert fates == []
    await sane()


@pytest.mark.rule("P38")
async def test_what_waits_too_long_with_its_holder_does_not_strand_the_next_one(sql, patient, job, clock, look, sane):
    first, second = await job(concurrency_key="k"), await job(concurrency_key="k")
    await clock.forward(minutes=5)
    third = await job(concurrency_key="k")
    await clock.forward(minutes=6)
    assert sorted(await patient.expire()) == [first, second]
    assert (await look(third))["status"] == "queued"
    await sane()
