"""Rules 5 and 6 replayed: what an older daemon has sent is dropped, and the older daemon leaves."""

import asyncio

import pytest
from sql.people import register

pytestmark = pytest.mark.race


async def test_a_spawn_that_a_dead_daemon_left_in_the_socket_starts_nothing_after_the_next_hello(
    stage, observer, sql, agent, insert, ends, runs
):
    """Rule 5: send spawn; SIGKILL; the new daemon lists, adopts, ends the run; then the keeper reads the old bytes."""
    await agent("long", "sleep 300")
    async with stage.daemon() as daemon:
        spawn = stage.wire.hold("spawn")
        job = await insert("long")
        run = (await spawn.met())["run_id"]
        daemon.kill()
        await daemon.wait()
        await sql.execute("select leasehold.pause_agent('long')")
        async with stage.daemon():
            await ends(job, "queued")
            assert await runs(job) == [("lost", "daemon_restart")]
            spawn.release()
            await stage.delivered(spawn)
            assert observer.tree(stage.host, run) == []
            assert not stage.keeper.path(run, "started").exists()


async def test_a_daemon_that_is_superseded_leaves_and_says_hello_no_more(stage, observer):
    """Rule 6: told so by the keeper."""
    async with stage.daemon() as daemon:
        successor = stage.keeper.call()
        assert await asyncio.wait_for(daemon.wait(), 20) != 0
        assert successor.ask("list")["ok"]
    await stage.host.said("keeper_superseded")
    assert len(stage.wire.asked("hello")) == 1


async def test_a_daemon_that_was_superseded_while_it_was_cut_off_spawns_nothing_and_leaves(
    stage, observer, sql, agent, insert, ends, runs
):
    """Rule 6: its connection is taken over, it says hello again, and spawns what its successor has found absent and ended."""
    await agent("long", "sleep 300")
    async with stage.daemon() as daemon:
        spawn = stage.wire.cut_at("spawn")
        stage.wire.open = True
        job = await insert("long")
        await spawn.met()
        stage.wire.open = False
        stage.wire.cut()
        await stage.host.said("keeper_lost")
        await sql.execute("select leasehold.pause_agent('long')")
        successor = stage.keeper.call()
        assert successor.ask("list")["runs"] == []
        life = await register(sql, instance="one", keeper=stage.identity())
        assert [what for what, _ in await life.adopt()] == ["ended"]
        stage.wire.open = True
        assert await asyncio.wait_for(daemon.wait(), 20) != 0
        await ends(job, "queued")
        assert [outcome for outcome, _ in await runs(job)] == ["lost"]
        assert successor.ask("list")["runs"] == []
