"""Rules 16, 17 and 20 replayed: what a reaper may take, what a cancel means then, and what a late outcome still does."""

import signal

import pytest
from protocol.stage import PATIENT, SHORT, until

pytestmark = pytest.mark.race


@pytest.mark.rule("SW6")
async def test_a_cancelled_job_whose_worker_is_reaped_does_not_run_again(
    stage, observer, other, sql, agent, insert, started, ends, runs
):
    """Rule 16: ask for a cancel; the worker dies; the reap requeues the job, and it runs again."""
    await agent("long", "sleep 300")
    async with stage.daemon(**SHORT) as daemon:
        job = await insert("long")
        run = await started(job)
        daemon.send_signal(signal.SIGSTOP)
        assert await sql.fetchval("select leasehold.cancel($1)", job) == "requested"
        async with other.daemon(**PATIENT):
            await other.said("reaped", run_id=run, job_status="cancelled")
            daemon.send_signal(signal.SIGCONT)
            await stage.host.said("lease_lost")
            await stage.host.said("worker_registered", worker=3)
            await ends(job, "cancelled")
    assert (await runs(job))[-1] == ("lost", "worker_lost")


STEP = """create or replace function leasehold.clock() returns timestamptz language sql volatile
          as $$ select pg_catalog.clock_timestamp() + interval '1 hour' $$"""


@pytest.mark.rule("GW15")
async def test_a_step_of_the_databases_clock_gives_no_living_run_away(
    stage, observer, other, sql, agent, insert, started, eventually, runs
):
    """Rule 17: the database's clock steps over the end of the lease; a reaper that believes it takes a living run."""
    await agent("long", "sleep 300")
    async with other.daemon(**PATIENT, queues="nothing"), stage.daemon(**SHORT) as daemon:
        job = await insert("long")
        run = await started(job)
        daemon.send_signal(signal.SIGSTOP)
        await sql.execute(STEP)
        await other.said("lease_lost")  # it steps for everybody
        await other.said("reaped", run_id=run)
        assert not observer.tree(stage.host, run)
        record = await stage.record(run)
        assert record["why"] == "deadline"
    assert await runs(job) == [("lost", "worker_lost")]


ONCE = "if [ -e {flag} ]; then exec sleep 300; fi; touch {flag}; until [ -e {go} ]; do sleep 0.05; done"


async def test_an_outcome_that_arrives_after_the_run_was_given_up_settles_the_job_unless_it_runs_again(
    stage, observer, other, sql, agent, insert, started, ends, runs, tmp_path
):
    """Rule 20: the agents end well, their worker is reaped, then it comes back with what they did."""
    go = tmp_path / "go"
    for name in ("waits", "again"):
        await agent(name, ONCE.format(flag=tmp_path / name, go=go))
    async with stage.daemon(**SHORT) as daemon:
        waits, again = await insert("waits"), await insert("again")
        first = [await started(job) for job in (waits, again)]
        await until(lambda: (tmp_path / "waits").exists() and (tmp_path / "again").exists(), "both agents")
        daemon.send_signal(signal.SIGSTOP)
        go.touch()
        for run in first:
            assert (await stage.record(run))["exit_code"] == 0
        await sql.execute("select leasehold.pause_agent('waits')")
        async with other.daemon(**PATIENT):
            for run in first:
                await other.said("reaped", run_id=run)
            second = await started(again)
            daemon.send_signal(signal.SIGCONT)
            await ends(waits, "succeeded")
            for run in first:
                await until(lambda: not stage.keeper.path(run, "").exists(), "the run directory to go")  # noqa: B023
            assert observer.tree(other, second)
            late = await sql.fetch("select late_outcome ->> 'outcome' from leasehold.runs where id = any($1)", first)
            assert [row[0] for row in late] == ["succeeded", "succeeded"]
            assert await runs(waits) == [("lost", "worker_lost")]
            assert await runs(again) == [("lost", "worker_lost"), (None, None)]
    told = "select count(*) from leasehold.events where kind = 'late_outcome' and job_id = any($1)"
    assert await sql.fetchval(told, [waits, again]) == 2
