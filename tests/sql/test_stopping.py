"""Suspicion, stop and quarantine: what a worker says of a live run, and that nothing lives on twice."""

import asyncio
import json

import pytest
from asyncpg import PostgresError


@pytest.fixture
async def run(worker, job):
    await job(concurrency_key="k")
    return await worker.claim_one()


@pytest.fixture
def kept(sql):
    async def one(run):
        return await sql.fetchrow("select * from leasehold.runs where id = $1", run["run_id"])

    return one


async def test_a_stop_is_a_status_and_one_event_however_often_it_is_reported(worker, run, kept, story, sql):
    await worker.start(run)
    await worker.stop(run, "total")
    await worker.stop(run, "cancelled")
    assert (await kept(run))["status"] == "stopping"
    assert await story(run["job_id"]) == ["queued", "started", "spawned", "stopping"]
    assert await sql.fetchval("select data ->> 'why' from leasehold.events where kind = 'stopping'") == "total"
    assert await sql.fetchval("select run_status from leasehold.job_overview") == "stopping"


async def test_a_run_can_be_stopped_before_it_has_started_and_may_still_say_that_it_did(worker, run, kept, story):
    await worker.stop(run)
    await worker.start(run, {"pid": 42})
    row = await kept(run)
    assert (row["status"], json.loads(row["identity"]), row["started_at"] is None) == ("stopping", {"pid": 42}, False)
    await worker.start(run)
    assert await story(run["job_id"]) == ["queued", "started", "stopping", "spawned"]


async def test_a_stopping_run_is_renewed_adopted_read_and_finished_like_any_other(worker, hire, run, sane):
    await worker.stop(run)
    assert [row["what"] for row in await worker.renew([run])] == ["renewed"]
    successor = await hire()
    assert await successor.adopt([run]) == [("adopted", run["run_id"])]
    assert [row["status"] for row in await successor.read([run])] == ["stopping"]
    assert (await successor.finish(run, "timed_out", "total"))["job_status"] == "timed_out"
    await sane()


async def test_a_stopping_run_can_be_lost(worker, hire, run, clock):
    await worker.stop(run)
    await clock.forward(seconds=121)
    assert [row["job_status"] for row in await (await hire(instance="beta")).reap()] == ["queued"]


@pytest.mark.rule("P8")
async def test_a_suspicion_is_a_warning_with_its_facts_and_the_time_on_the_run(sql, worker, run, kept, clock):
    await clock.forward(seconds=30)
    await worker.suspect(run, "idle", cpu_seconds=0.1, io_bytes=0)
    await worker.suspect(run, "idle", cpu_seconds=0.1, io_bytes=0)
    assert (await kept(run))["suspected_at"] == clock.now
    [row] = await sql.fetch("select level, data from leasehold.events where kind = 'suspect'")
    assert (row["level"], json.loads(row["data"])) == (
        "warning",
        {"clock": "idle", "cpu_seconds": 0.1, "io_bytes": 0},
    )
    await worker.suspect(run, "idle", cpu_seconds=0.2, io_bytes=0)
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'suspect'") == 2
    assert (await kept(run))["status"] == "starting"


@pytest.mark.rule("S42")
@pytest.mark.parametrize("say", ["stop", "suspect", "unkillable"])
async def test_only_the_live_runs_own_worker_may_say_such_things(worker, hire, run, refused, say):
    other = await hire(instance="beta")
    async with refused("LH011", "belongs to worker"):
        await getattr(other, say)(run)
    async with refused("LH011", "has another token"):
        await getattr(worker, say)(dict(run) | {"run_token": worker.token})
    async with refused("LH013"):
        await getattr(worker, say)(dict(run) | {"run_id": 4711})
    await worker.finish(run)
    async with refused("LH010"):
        await getattr(worker, say)(run)


class TestUnkillable:
    """Invariants 1 and 4: what cannot be killed keeps its place, and nothing runs beside or after it by itself."""

    @pytest.fixture
    async def stuck(self, worker, run, job):
        await job(concurrency_key="k")
        await worker.start(run)
        await worker.unkillable(run, processes=[{"pid": 7, "name": "dd", "state": "D"}])
        await worker.unkillable(run)
        return run

    async def test_it_is_told_once_and_shown_everywhere(self, sql, worker, stuck, kept, story, clock):
        assert (await kept(stuck))["unkillable_since"] == clock.now
        assert await story(stuck["job_id"]) == ["queued", "started", "spawned", "unkillable"]
        [row] = await sql.fetch("select level, data from leasehold.events where kind = 'unkillable'")
        assert (row["level"], json.loads(row["data"])["processes"][0]["state"]) == ("error", "D")
        assert await sql.fetchval("select unkillable from leasehold.queue_stats") == 1
        shown = await sql.fetchrow("select * from leasehold.job_overview where id = $1", stuck["job_id"])
        assert (shown["situation"], shown["unkillable_since"]) == (
            "quarantined: its processes cannot be killed",
            clock.now,
        )
        assert [row["unkillable"] for row in await worker.read([stuck])] == [True]

    @pytest.mark.rule("PW10", "X15")
    async def test_it_keeps_its_slot_and_its_key_until_its_end(self, sql, worker, stuck, clock, look, sane):
        await sql.execute("update leasehold.agents set max_running = 1")
        for _ in range(3):
            await clock.forward(seconds=60)
            assert [row["what"] for row in await worker.renew([stuck])] == ["renewed"]
            assert await worker.claim() == []
        await sane()
        assert (await worker.finish(stuck, "timed_out", "total"))["job_status"] == "timed_out"
        [next_one] = await worker.claim()
        assert next_one["job_id"] == stuck["job_id"] + 1
        await sane()

    async def test_the_next_life_keeps_it_if_its_keeper_has_it(self, worker, hire, stuck, kept):
        successor = await hire()
        assert await successor.adopt([stuck]) == [("adopted", stuck["run_id"])]
        assert (await kept(stuck))["unkillable_since"] is not None

    async def give_up(self, by, worker, hire, clock):
        if by == "reap":
            await clock.forward(seconds=121)
            reaper = await hire(instance="beta")
            assert [row["job_status"] for row in await reaper.reap()] == ["failed"]
            return reaper
        successor = await hire()
        assert [what for what, _ in await successor.adopt()] == ["ended"]
        return successor

    @pytest.mark.parametrize("by", ["reap", "adopt"])
    async def test_given_up_it_ends_its_job_whatever_attempts_are_left(
        self, sql, worker, hire, stuck, clock, kept, look, story, sane, by
    ):
        await sql.execute("update leasehold.jobs set max_attempts = 9")
        taker = await self.give_up(by, worker, hire, clock)
        row, run = await look(stuck["job_id"]), await kept(stuck)
        assert (row["status"], row["reason"], row["attempts"], row["losses"]) == ("failed", "unkillable", 0, 1)
        assert (run["outcome"], run["reason"]) == ("lost", "unkillable")
        assert (await story(stuck["job_id"]))[-1] == "failed"
        assert [run["job_id"] for run in await taker.claim()] == [stuck["job_id"] + 1]  # the key is free only now
        await sane()

    async def test_given_up_it_does_not_end_cancelled_because_nobody_knows_that_it_is_gone(
        self, sql, worker, hire, stuck, clock, look
    ):
        await sql.execute("select leasehold.cancel($1)", stuck["job_id"])
        await self.give_up("reap", worker, hire, clock)
        assert (await look(stuck["job_id"]))["status"] == "failed"

    async def test_its_cancel_ends_it_cancelled_when_its_worker_sees_it_gone(self, sql, worker, stuck):
        await sql.execute("select leasehold.cancel($1)", stuck["job_id"])
        assert (await worker.finish(stuck, "cancelled", "cancelled"))["job_status"] == "cancelled"

    @pytest.mark.rule("A90")
    @pytest.mark.parametrize("by", ["reap", "adopt"])
    async def test_a_late_outcome_of_it_is_written_once_and_changes_nothing(
        self, worker, hire, stuck, clock, kept, story, refused, by
    ):
        """Rule 20."""
        await self.give_up(by, worker, hire, clock)
        assert tuple(await worker.finish(stuck, exit_code=0)) == ("late", "failed", None)
        assert tuple(await worker.finish(stuck, exit_code=0)) == ("late", "failed", None)
        async with refused("LH010"):
            await worker.fail(stuck)
        row = await kept(stuck)
        assert (row["outcome"], row["reason"], json.loads(row["late_outcome"])["outcome"]) == (
            "lost",
            "unkillable",
            "succeeded",
        )
        assert (await story(stuck["job_id"]))[-2:] == ["failed", "late_outcome"]

    async def test_a_late_outcome_leaves_a_job_alone_that_was_retried_by_hand(self, sql, worker, hire, stuck, clock):
        await self.give_up("reap", worker, hire, clock)
        await sql.execute("select leasehold.retry($1)", stuck["job_id"])
        before = await sql.fetchrow("select * from leasehold.jobs where id = $1", stuck["job_id"])
        assert (await worker.finish(stuck))["disposition"] == "late"
        assert await sql.fetchrow("select * from leasehold.jobs where id = $1", stuck["job_id"]) == before

    async def test_nothing_survives_a_reboot_so_its_job_runs_again(self, hire, stuck, look):
        assert await (await hire(boot="boot-2")).adopt() == [("ended", stuck["run_id"])]
        row = await look(stuck["job_id"])
        assert (row["status"], row["reason"]) == ("queued", "host_reboot")

    async def test_the_verdict_of_its_own_worker_is_final(self, worker, stuck, refused):
        assert (await worker.finish(stuck, "timed_out", "total"))["disposition"] == "settled"
        async with refused("LH010"):
            await worker.finish(stuck)


async def raced(*calls):
    """All at once; answers each one's result, or the SQLSTATE it was refused with."""

    async def one(call):
        try:
            return await call
        except PostgresError as error:
            assert error.sqlstate in ("LH010", "LH012"), error
            return error.sqlstate

    return await asyncio.gather(*(one(call) for call in calls))


@pytest.mark.race
async def test_reporting_finishing_and_reaping_at_once_give_each_run_one_verdict(sql, fixer, hire, connect, sane):
    """Whatever comes first: an unkillable run that is given up is never queued again, any other verdict is the worker's or lost."""
    owner = await hire()
    await sql.execute(
        "insert into leasehold.jobs (agent, prompt, max_attempts) select 'fixer', 'x', 5 from generate_series(1, 60)"
    )
    runs = await owner.claim(60)
    reaper = await hire(await connect(), instance="beta")
    await sql.execute(
        "update leasehold.workers set lease_expires_at = leasehold.clock() - interval '1 ms' where id = $1", owner.id
    )
    seen = await reaper.watch()
    lines = [await connect() for _ in range(3)]

    async def say(line, order):
        for run in order:
            await raced(owner.unkillable(run, sql=line))

    async def finish(line, order):
        return [
            one["disposition"]
            for run in order
            if not isinstance(one := (await raced(owner.finish(run, sql=line)))[0], str)
        ]

    async def reap():
        return [row for _ in range(4) for row in await reaper.reap(seen)]

    _, ends, _, reaped = await asyncio.gather(
        say(lines[0], runs), finish(lines[1], runs[::-3]), say(lines[2], runs[::2]), reap()
    )
    while rows := await reaper.reap(seen):
        reaped += rows
    assert len(reaped) + ends.count("settled") == 60
    assert len({row["run_id"] for row in reaped}) == len(reaped)
    wrong = await sql.fetch("""
        select r.id, r.outcome, r.unkillable_since, j.status from leasehold.runs r join leasehold.jobs j on j.id = r.job_id
         where r.ended_at is null
            or (r.outcome = 'lost' and (r.unkillable_since is not null) <> (r.reason = 'unkillable'))
            or (r.unkillable_since is not null and j.status = 'queued')""")
    assert wrong == []
    await sane()


@pytest.mark.race
async def test_a_stop_beside_a_finish_is_before_it_or_refused(sql, fixer, hire, connect, story, sane):
    worker = await hire()
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 80)")
    runs = await worker.claim(80)
    one, two = await connect(), await connect()
    for run in runs:
        stopped, finished = await raced(worker.stop(run, sql=one), worker.finish(run, sql=two))
        assert finished["disposition"] == "settled"
        expected = (
            ["queued", "started", "succeeded"] if stopped == "LH010" else ["queued", "started", "stopping", "succeeded"]
        )
        assert await story(run["job_id"]) == expected
    await sane()
