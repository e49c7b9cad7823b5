"""Rules 18 and 19 replayed: a new primary that lacks the last claims gives nothing away for a lease, and tokens tell runs apart."""

from uuid import uuid4

import pytest
from protocol.stage import FORGET, LEASE, PATIENT, SHORT

pytestmark = pytest.mark.race

LONGER = {**SHORT, "lease": f"{LEASE * 2}s"}

NO_CLAIM = "select pg_advisory_xact_lock(hashtextextended('leasehold.claim', 0));"
"""A real promotion finds no claim in the midst of its work; ours waits until that is so."""
NEW_TIMELINE = """
    update leasehold.cluster set timeline = 'FFFFFFFF';
    insert into leasehold.arrivals (lane, queue, tenant, agent) select lane, queue, tenant, agent from leasehold.jobs;
"""


async def test_after_a_failover_nothing_is_claimed_while_a_tree_of_before_it_may_live(
    stage, observer, other, sql, agent, insert, started, runs
):
    """Rule 18: a replica is promoted without the claim; the other host claims the job at once, and its first tree lives."""
    await agent("long", "sleep 300")
    async with stage.daemon(**LONGER):
        job = await insert("long")
        run = await started(job)
        async with other.daemon(**LONGER, poll="0.3s"):
            assert observer.tree(stage.host, run)
            stage.base.open = False
            stage.base.cut()
            await sql.execute(NO_CLAIM + FORGET + NEW_TIMELINE)
            await started(job)
            assert not observer.tree(stage.host, run)
            assert (await stage.record(run))["why"] in ("deadline", "lost")


async def test_a_run_whose_id_was_given_before_a_failover_has_a_life_and_a_verdict_of_its_own(
    stage, observer, sql, agent, insert, ends, runs
):
    """Rule 19: a promoted replica gives run ids again; an old exit record settles the new run, an old tree passes for it."""
    await agent("true", "true")
    caller = stage.keeper.call()
    caller.sh(1, "exit 3", token=str(uuid4()))
    caller.ended(1)
    caller.sh(2, "trap '' TERM; sleep 300", token=str(uuid4()))
    async with stage.daemon(**PATIENT):
        jobs = [await insert("true"), await insert("true")]
        for job in jobs:
            await ends(job, "succeeded")
        assert sorted(await sql.fetchval("select array_agg(id) from leasehold.runs")) == [1, 2]
        for job in jobs:
            assert await runs(job) == [("succeeded", "ok")]
