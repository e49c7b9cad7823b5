"""Rules 7 to 9 replayed: adoption commits before anything is extended, ends older lives, and knows its keeper."""

import asyncpg
import pytest
from protocol.stage import PATIENT, SHORT, until
from sql.people import register

pytestmark = pytest.mark.race


async def test_nothing_is_extended_before_the_adoption_has_committed_nor_what_was_reaped_meanwhile(
    stage, observer, other, agent, insert, started, runs
):
    """Rule 7: register the next life, extend all that the keeper has, then adopt; the older life is reaped in between."""
    await agent("long", "sleep 300")
    async with stage.daemon(**SHORT) as daemon:
        job = await insert("long")
        run = await started(job)
        daemon.kill()
        await daemon.wait()
        before = len(stage.wire.requests)
        adoption = stage.base.hold("adopt")
        process = await stage.launch()
        try:
            await adoption.met()
            async with other.daemon(**PATIENT):
                await other.said("reaped", run_id=run)
                assert [each["op"] for each in stage.wire.requests[before:] if each["op"] != "about"] == [
                    "hello",
                    "list",
                ]
                adoption.release()
                await stage.host.said("runs_adopted", adopted=0, strangers=1)
                assert observer.tree(other, await started(job))
                await stage.host.said("run_late", run_id=run)
                assert not [each for each in stage.wire.asked("extend") if run in each["runs"]][1:]
                assert (await runs(job))[0] == ("lost", "worker_lost")
        finally:
            process.kill()
            await process.wait()


async def test_an_adoption_that_arrives_after_a_newer_life_has_begun_is_refused_and_ends_nothing(
    stage, observer, sql, agent, insert, started, runs
):
    """Rule 8: send adopt; SIGKILL; the next life adopts, claims, spawns; then the first adoption arrives."""
    await agent("long", "sleep 300")
    first = await register(sql, instance="one", keeper=stage.identity())
    async with stage.daemon():
        job = await insert("long")
        run = await started(job)
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await first.adopt()
        assert refusal.value.sqlstate == "LH012"
        assert await runs(job) == [(None, None)]
        assert observer.tree(stage.host, run)


async def test_an_older_life_takes_nothing_from_a_newer_one(stage, observer, sql, agent, insert, started, runs):
    """Rule 8: even an older life that nobody has closed."""
    await agent("long", "sleep 300")
    first = await register(sql, instance="one", keeper=stage.identity())
    async with stage.daemon():
        job = await insert("long")
        await started(job)
        await sql.execute("set session_replication_role = replica")
        await sql.execute(
            "update leasehold.workers set state = 'alive', ended_at = null, lease_expires_at = 'infinity'"
        )
        await sql.execute("set session_replication_role = origin")
        assert await first.adopt() == []
        assert await runs(job) == [(None, None)]


@pytest.mark.rule("P80")
async def test_the_daemon_of_a_cloned_image_leaves_the_runs_of_another_keeper_alone(
    stage, observer, other, sql, agent, insert, started, runs, eventually
):
    """Rule 9: the same instance name on two hosts; the second finds the first one's runs absent and ends them alive."""
    await agent("long", "sleep 300")
    other.instance = stage.host.instance
    async with stage.daemon(**SHORT) as daemon:
        job = await insert("long")
        run = await started(job)
        daemon.kill()
        await daemon.wait()
        async with other.daemon(**PATIENT):
            assert await runs(job) == [(None, None)] or not observer.tree(stage.host, run)
            await other.said("reaped", run_id=run)
            assert observer.tree(other, await started(job))
    assert (await runs(job))[0] == ("lost", "worker_lost")


async def test_a_run_that_was_stopped_before_it_was_spawned_does_not_keep_the_next_daemon_from_starting(
    stage, observer, agent, insert, ends
):
    """A stop leaves a tombstone without a token (rule 24 of the research): the next life must be able to read it."""
    await agent("true", "true")
    caller = stage.keeper.call()
    assert caller.ask("stop", run_id=4711, why="cancelled", signals=[])["ok"]
    async with stage.daemon():
        await ends(await insert("true"), "succeeded")
    await until(lambda: not stage.keeper.path(4711, "exit.json").exists(), "the tombstone to be forgotten")
