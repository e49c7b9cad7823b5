"""Nothing is lost: with the faults over, every pause lifted and time passing, claiming brings every job to its end."""

from sql.invariants import LIMITS, assert_sane
from sql.people import register


def drain(world):
    world.run(lift_all(world))
    for _ in range(40):
        world.run(world.pass_time(24 * 3600))
        if world.run(one_day(world)) == 0:
            break
    left = world.run(world.eye.fetch("select id, status, reason from leasehold.jobs where finished_at is null"))
    assert not left, f"stranded: {[dict(row) for row in left]}"
    world.run(assert_sane(world.eye, leaving_out=LIMITS))


async def lift_all(world):
    await world.eye.execute("""
        update leasehold.agents set status = 'enabled', queue_timeout = null, max_running = greatest(max_running, 1);
        update leasehold.tenants set paused = false, max_running = greatest(max_running, 1);
        update leasehold.queues set paused = false, max_running = greatest(max_running, 1);
        update leasehold.repositories set max_running = greatest(max_running, 1);
        update leasehold.hosts set max_running = greatest(max_running, 1);
        delete from leasehold.budgets;
        delete from leasehold.holds;
        update leasehold.cluster set max_running = greatest(max_running, 1), timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8), closed_until = '-infinity'""")


async def one_day(world):
    """A new worker reaps what is left of the others, then works until nothing is due. Answers how many jobs have not ended."""
    worker = await register(world.eye, instance="last")
    await worker.adopt()
    await worker.reap()
    while runs := await worker.claim():
        for run in runs:
            await worker.finish(run)
    return await world.eye.fetchval("select count(*) from leasehold.jobs where finished_at is null")
