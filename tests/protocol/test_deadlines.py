"""Rules 1 to 4 replayed: no deadline without a proof, no proof older than its reading, no start after the deadline."""

import asyncio
import signal

import pytest
from protocol.stage import FORGET, PATIENT, SHORT, until
from support.keeper import boottime

pytestmark = pytest.mark.race

LEFT = "select extract(epoch from lease_expires_at - leasehold.clock())::float8 from leasehold.workers where state = 'alive'"
SLACK = 0.1


async def test_a_claim_long_after_the_last_renewal_gets_no_deadline_of_its_own(
    stage, observer, sql, agent, insert, eventually
):
    """Rule 1: renew; much later claim; spawn with "now + lease - margin"; the lease ends first."""
    await agent("long", "sleep 300")
    async with stage.daemon(lease="7s", renewal="2.4s", margin="2s", grace="0.3s") as daemon:
        spawn = stage.wire.hold("spawn")
        await eventually(sql, f"select ({LEFT}) < 5.4", expected=True)
        await insert("long")
        asked = await spawn.met()
        daemon.send_signal(signal.SIGSTOP)
        left = await sql.fetchval(LEFT)
        assert asked["deadline"] - boottime() <= left - 2 + SLACK
        spawn.release()
        record = await stage.record(asked["run_id"])
        assert record["why"] == "deadline"
        outlived = "select to_timestamp($1) > lease_expires_at from leasehold.workers"
        assert not await sql.fetchval(outlived, record["ended_at"]), "the tree has outlived the lease"


async def test_a_waiting_spawn_gains_nothing_from_a_renewal_that_does_not_know_its_run(
    stage, observer, sql, agent, insert, eventually
):
    """Rule 2: claim; the primary is replaced by one that never saw it; renew there; spawn with what that renewal proved."""
    await agent("long", "sleep 300")
    async with stage.daemon():
        cut = stage.wire.cut_at("spawn")
        await insert("long")
        first = await cut.met()
        stage.wire.open = False
        stage.wire.cut()
        await sql.execute("select leasehold.pause_agent('long')")
        await sql.execute(FORGET)
        renewals = await sql.fetchval("select renewals from leasehold.workers")
        await eventually(sql, "select renewals > $1 from leasehold.workers", renewals + 1, expected=True)
        stage.wire.open = True
        await until(lambda: len(stage.wire.asked("spawn")) > 1, "the spawn to come again")
        assert {each["deadline"] for each in stage.wire.asked("spawn")} == {first["deadline"]}


async def test_a_spawn_that_arrives_after_the_reap_is_refused_and_recorded_as_never_started(
    stage, observer, other, sql, agent, insert, started, runs
):
    """Rule 3: the spawn waits in the socket until the job has been given away, and runs then."""
    await agent("long", "sleep 300")
    async with stage.daemon(**SHORT) as daemon:
        spawn = stage.wire.hold("spawn")
        job = await insert("long")
        run = (await spawn.met())["run_id"]
        daemon.send_signal(signal.SIGSTOP)
        async with other.daemon(**PATIENT):
            await other.said("reaped", run_id=run)
            again = await started(job)
            assert observer.tree(other, again)
            spawn.release()
            record = await stage.record(run)
            assert (record["state"], record["why"]) == ("never_started", "deadline")
            assert await runs(job) == [("lost", "worker_lost"), (None, None)]


async def test_a_renewal_that_is_answered_late_proves_no_more_than_one_that_is_answered_at_once(
    stage, observer, sql, agent, insert, started
):
    """Rule 4: the clock is read when the answer arrives, and the deadline is later than the lease."""
    await agent("long", "sleep 300")
    async with stage.daemon():
        await started(await insert("long"))
        renewal = stage.base.hold("renew", on="answer")
        await renewal.met()
        extend = stage.wire.hold("extend")
        await asyncio.sleep(0.8)  # the lateness itself
        renewal.release()
        deadline = (await extend.met())["deadline"]
        left = await sql.fetchval(LEFT)
        extend.release()
        assert deadline - boottime() <= left - 20 + SLACK
