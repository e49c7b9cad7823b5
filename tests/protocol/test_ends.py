"""Rules 13 to 15 replayed: no run ends before its tree has, also when the keeper dies or does not come back."""

import json
import signal

import asyncpg
import pytest
from protocol.stage import LEASE, PATIENT, SHORT, until
from support.host import alive

pytestmark = pytest.mark.race

LINGER = """setsid sh -c 'trap "" TERM; echo $$ >stray; while :; do sleep 0.1; done' &
echo '{"type": "result", "ok": true}'; until [ -e go ]; do sleep 0.05; done"""


async def test_a_result_ends_nothing_while_the_tree_lingers_nor_does_any_other_call(
    stage, observer, sql, agent, insert, started, eventually, runs
):
    """Rule 13: finish on the agent's word, its tree still there; the job is run again beside it."""
    await agent("lingerer", LINGER)
    async with stage.daemon():
        job = await insert("lingerer")
        run = await started(job)
        workspace = stage.keeper.path(run, "workspace")
        await until((workspace / "stray").exists, "the stray")
        said = "select count(*) from leasehold.events where job_id = $1 and kind = 'result'"
        await eventually(sql, said, job, expected=1)
        leader = json.loads(await sql.fetchval("select identity from leasehold.runs where id = $1", run))["pid"]
        keeper = stage.keeper.processes[-1]
        keeper.send_signal(signal.SIGSTOP)
        try:
            (workspace / "go").touch()
            await until(lambda: not alive(leader), "the leader's end")
            for call in ("retry($1)", "deregister_worker(id, token) from leasehold.workers where $1 > 0"):
                with pytest.raises(asyncpg.PostgresError):
                    await sql.fetchval(f"select leasehold.{call}", job)
            assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
            seen = await sql.fetchval("select renewals from leasehold.workers")
            await eventually(sql, "select renewals > $1 from leasehold.workers", seen + 1, expected=True)
            assert observer.tree(stage.host, run) and await runs(job) == [(None, None)]
        finally:
            keeper.send_signal(signal.SIGCONT)
        await eventually(sql, "select count(*) from leasehold.runs where ended_at is null", expected=0)
    [(outcome, _)] = await runs(job)
    assert outcome in ("succeeded", "cancelled")


async def test_a_new_keeper_has_swept_its_predecessors_trees_before_their_runs_end(
    stage, observer, sql, agent, insert, started, ends, runs
):
    """Rule 14: the keeper is killed, its trees survive, and the next keeper does not know them."""
    await agent("family", "setsid sleep 300 & sleep 300")
    async with stage.daemon():
        job = await insert("family")
        run = await started(job)
        await until(lambda: len(observer.tree(stage.host, run)) >= 2, "the family")
        await sql.execute("select leasehold.pause_agent('family')")
        stage.keeper.kill()
        await stage.host.said("keeper_lost")
        assert len(observer.tree(stage.host, run)) >= 2
        stage.keeper.start(wait=False)
        await ends(job, "queued")
        assert observer.tree(stage.host, run) == []
    assert await runs(job) == [("lost", "keeper_lost")]


async def test_a_daemon_whose_keeper_is_gone_kills_in_time_and_keeps_the_run_until_that_is_known(
    stage, observer, other, sql, agent, insert, started, eventually, runs, ends
):
    """Rule 15: the tree outlives its deadline because nobody kills it; or it is given away because renewals have stopped."""
    await agent("family", "setsid sleep 300 & sleep 300")
    async with stage.daemon(**SHORT) as daemon:
        job = await insert("family")
        run = await started(job)
        async with other.daemon(**PATIENT):
            stage.keeper.kill()
            limit = await sql.fetchval("select clock_timestamp() + interval '1 second' * $1", LEASE)
            await stage.host.said("last_resort_kill", run_id=run)
            await until(lambda: not observer.tree(stage.host, run), "the end of the tree")
            seen = await sql.fetchval("select max(renewals) from leasehold.workers where instance = 'one'")
            await eventually(sql, "select clock_timestamp() > $1", limit, expected=True)
            query = "select renewals > $1 from leasehold.workers where instance = 'one'"
            await eventually(sql, query, seen, expected=True)
            assert await runs(job) == [(None, None)]
            stage.keeper.start(wait=False)
            await eventually(sql, "select ended_at is not null from leasehold.runs where id = $1", run, expected=True)
        assert daemon.returncode is None
    assert (await runs(job))[0][1] in ("keeper_lost", "lease_lost")
