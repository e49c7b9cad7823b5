"""A worker's lease: renewal that answers back, what is refused after it, and leaving."""

from datetime import timedelta

import pytest


async def told(worker, runs=()):
    return [tuple(row) for row in await worker.renew(runs)]


@pytest.mark.rule("S85", "A35", "G25")
async def test_a_renewal_extends_the_lease_and_counts(sql, worker, clock):
    await clock.forward(seconds=100)
    assert await told(worker) == [("renewed", None, "0")]
    row = await sql.fetchrow("select lease_expires_at, renewals from leasehold.workers")
    assert tuple(row) == (clock.now + timedelta(seconds=120), 1)


@pytest.mark.rule("SW14", "A36", "PW11")
async def test_a_renewal_answers_only_exceptions_and_the_renewed_row_first(sql, worker, hire, job):
    jobs = [await job() for _ in range(4)]
    runs = await worker.claim()
    other = await hire(instance="beta")
    await job()
    [foreign] = await other.claim()
    await worker.finish(runs[0])
    await sql.execute("select leasehold.cancel($1, 'enough')", jobs[2])
    answer = await told(worker, [runs[0], runs[1], runs[2], foreign, 4711])
    assert answer[0] == ("renewed", None, "3")
    assert sorted(answer[1:]) == sorted([
        ("lost", runs[0]["run_id"], None),  # it has ended
        ("lost", foreign["run_id"], None),  # it is another worker's
        ("lost", 4711, None),  # a failover forgot it
        ("unnamed", runs[3]["run_id"], None),  # its claim's answer was lost (rule 10)
        ("cancel", runs[2]["run_id"], "enough"),
    ])  # fmt: skip


async def test_naming_a_run_twice_or_null_is_harmless(worker, job):
    await job()
    run = await worker.claim_one()
    assert await told(worker, [run, run]) == [("renewed", None, "1")]
    rows = await worker.sql.fetch("select * from leasehold.renew($1, $2, array[null]::bigint[], '1 min')", *worker.me)
    assert [row["what"] for row in rows] == ["renewed", "unnamed"]


@pytest.mark.rule("SW14", "A33", "AW4", "GW15")
async def test_a_lease_that_ran_out_is_not_renewed_even_if_nobody_reaped_it(worker, clock, refused):
    await clock.forward(seconds=120)
    async with refused("LH012", "has run out"):
        await worker.renew()


async def test_a_reaper_that_comes_first_wins_over_the_renewal(sql, worker, hire, clock, connect, job, refused, look):
    born = await job()
    await worker.claim()
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta")
    assert len(await reaper.reap()) == 1
    async with refused("LH012", "is lost"):
        await worker.renew()
    assert (await look(born))["status"] == "queued"


@pytest.mark.rule("AW4", "GW25")
@pytest.mark.parametrize("lease", [timedelta(0), timedelta(seconds=-1), None])
async def test_a_lease_must_be_above_zero(worker, hire, refused, lease):
    async with refused("LH016"):
        await hire(lease=lease)
    async with refused("LH016"):
        await worker.renew(lease=lease)
    async with refused("LH016"):
        await worker.adopt(lease=lease)


async def test_leaving_closes_the_worker_and_may_be_repeated(sql, worker, refused):
    await worker.deregister()
    await worker.deregister()
    assert await sql.fetchval("select state from leasehold.workers") == "closed"
    async with refused("LH012"):
        await worker.claim()
    worker.id = 4711
    async with refused("LH012"):
        await worker.deregister()


async def test_leaving_with_live_runs_is_refused(worker, job, refused):
    await job()
    run = await worker.claim_one()
    async with refused("LH015", "still has 1 live run(s)"):
        await worker.deregister()
    await worker.finish(run)
    await worker.deregister()
