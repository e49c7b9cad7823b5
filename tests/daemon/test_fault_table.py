"""One table of faults. After each: one tree per job at any moment, one verdict per run, nothing lost, no strays.

The trees are watched by an observer that knows /proc and a mark in the environment, and nothing of Leasehold.
"""

import asyncio
import signal

import pytest
from support.clock import step_clock
from support.host import Host
from support.stage import SHORT, open_stage

pytestmark = pytest.mark.race

GONE = "select not exists (select from leasehold.runs where worker_id = $1 and ended_at is null)"
"""All that a worker had is ended: its lease ran out, and somebody saw it."""


async def killed(stage):
    await stage.one.kill()
    await stage.one.launch()


async def killed_for_good(stage):
    worker = await stage.worker(stage.one)
    await stage.one.kill()
    await stage.until(GONE, worker)
    await stage.one.launch()


async def woken_late(stage, worker):
    """It learns that its lease is gone, says so once, and goes on under a new one."""
    await stage.one.host.said("lease_lost")
    await stage.until("select max(id) > $1 from leasehold.workers where instance = 'one'", worker)
    assert sum(line["event"] == "lease_lost" for line in stage.one.host.lines()) == 1


async def stopped_and_resumed(stage):
    worker = await stage.worker(stage.one)
    stage.one.signal(signal.SIGSTOP)
    await stage.until(GONE, worker)
    stage.one.signal(signal.SIGCONT)
    await woken_late(stage, worker)


async def busy_loop(stage):
    worker = await stage.worker(stage.one)
    stage.one.signal(signal.SIGUSR1)
    await stage.until(GONE, worker)
    stage.one.signal(signal.SIGUSR2)
    await woken_late(stage, worker)


async def cut_off(stage):
    worker = await stage.worker(stage.one)
    await stage.one.proxy.refuse()
    await stage.until(GONE, worker)
    await stage.one.proxy.listen()
    await woken_late(stage, worker)


async def half_open(stage):
    worker = await stage.worker(stage.one)
    stage.one.proxy.go_deaf()
    await stage.until(GONE, worker)
    stage.one.proxy.hear_again()
    await woken_late(stage, worker)


async def lines_cut_again_and_again(stage):
    for _ in range(5):
        stage.one.proxy.cut()
        stage.two.proxy.cut()
        await asyncio.sleep(0.3)


async def slow_network(stage):
    stage.one.proxy.delay = 0.15
    await stage.insert("short", 6)
    await stage.settled()
    stage.one.proxy.delay = 0.0


async def postgres_restarted(stage):
    stage.postgres.stop()
    await asyncio.sleep(1.0)
    stage.postgres.start()


async def postgres_killed(stage):
    stage.postgres.kill()
    stage.postgres.start()


async def postgres_frozen(stage):
    stage.postgres.freeze()
    await asyncio.sleep(5.0)  # longer than the lease
    stage.postgres.thaw()


async def clock_forward(stage):
    async with stage.sql() as sql:
        await step_clock(sql, 3600)


async def clock_back(stage):
    async with stage.sql() as sql:
        await step_clock(sql, -3600)


async def clock_forward_over_a_dead_daemon(stage):
    worker = await stage.worker(stage.one)
    await stage.one.kill()
    async with stage.sql() as sql:
        await step_clock(sql, 3600)  # expired at once, by the only clock that the database has
    await stage.until(GONE, worker)
    await stage.one.launch()


async def keeper_killed(stage):
    stage.one.keeper(signal.SIGKILL)
    await stage.one.host.said("keeper_back")


async def keeper_stopped(stage):
    stage.one.keeper(signal.SIGSTOP)
    await stage.one.host.said("last_resort_kill")
    await stage.one.host.said("keeper_lost")
    worker = await stage.worker(stage.one)
    unclaimed = await stage.insert("short", queue="one")
    renewals = await stage.ask("select renewals from leasehold.workers where id = $1", worker)
    await stage.until("select renewals > $2 + 1 from leasehold.workers where id = $1", worker, renewals)
    assert await stage.ask("select count(*) from leasehold.runs where job_id = $1", unclaimed) == 0
    stage.one.keeper(signal.SIGCONT)


async def second_daemon(stage):
    """Refused beside the first one, and refused with a state directory of its own on the same host."""
    one = stage.one.host
    elsewhere = Host(one.directory.parent / "elsewhere", one.dsn, one.instance)
    for host in (Host(one.directory, one.dsn, one.instance), elsewhere):
        host.log_file = one.directory.parent / "second.log"
        second = await host.launch(**SHORT)
        assert await asyncio.wait_for(second.wait(), 60) == 1
        assert "another daemon" in host.log_file.read_text()[host.mark :]
        if host is elsewhere:
            host.clear()


def swallowed(needle):
    """The answer of that call's commit is lost: it has happened, and the daemon cannot know."""

    async def fault(stage):
        happened = stage.one.proxy.swallow(needle)
        await stage.insert("short", 8, queue="one")  # of the common queue the other one might take them all
        async with asyncio.timeout(60):
            await happened.wait()

    return fault


async def adoption_swallowed(stage):
    happened = stage.one.proxy.swallow("leasehold.adopt(")
    await stage.one.kill()
    await stage.one.launch(ready=False)
    async with asyncio.timeout(60):
        await happened.wait()
    await stage.one.host.said("daemon_ready", pid=stage.one.daemon.pid)


async def killed_while_postgres_was_away(stage):
    stage.postgres.stop()
    await stage.one.kill()
    await stage.one.launch(ready=False)
    await stage.one.host.said("database_away")
    stage.postgres.start()
    await stage.one.host.said("daemon_ready", pid=stage.one.daemon.pid)


async def daemon_and_keeper_killed(stage):
    await stage.one.kill()
    stage.one.keeper(signal.SIGKILL)
    await stage.one.launch()


async def keeper_killed_while_postgres_was_away(stage):
    stage.postgres.stop()
    stage.one.keeper(signal.SIGKILL)
    await stage.one.host.said("keeper_back")
    stage.postgres.start()


async def verdict_swallowed_and_daemon_killed(stage):
    happened = stage.one.proxy.swallow("leasehold.finish_run(")
    await stage.insert("short", 8, queue="one")  # of the common queue the other one might take them all
    async with asyncio.timeout(60):
        await happened.wait()
    await stage.one.kill()
    await stage.one.launch()


TABLE = {
    "the daemon is killed and comes back": killed,
    "the daemon is killed and stays away": killed_for_good,
    "the daemon is stopped and resumed": stopped_and_resumed,
    "the daemon hangs in a busy loop": busy_loop,
    "the daemon is cut from postgres": cut_off,
    "the way to postgres is half-open": half_open,
    "all lines are cut again and again": lines_cut_again_and_again,
    "the network is slow": slow_network,
    "postgres is restarted": postgres_restarted,
    "postgres is killed": postgres_killed,
    "postgres is frozen": postgres_frozen,
    "the clock steps forward": clock_forward,
    "the clock steps back": clock_back,
    "the clock steps forward over a dead daemon": clock_forward_over_a_dead_daemon,
    "the keeper is killed": keeper_killed,
    "the keeper is stopped": keeper_stopped,
    "a second daemon of the instance is started": second_daemon,
    "the answer of a claim is swallowed": swallowed("leasehold.claim("),
    "the answer of read_runs is swallowed": swallowed("leasehold.read_runs("),
    "the answer of start_run is swallowed": swallowed("leasehold.start_run("),
    "the answer of a renewal is swallowed": swallowed("leasehold.renew("),
    "the answer of a verdict is swallowed": swallowed("leasehold.finish_run("),
    "the answer of output is swallowed": swallowed("leasehold.append_output("),
    "the answer of an adoption is swallowed": adoption_swallowed,
    "the daemon is killed while postgres is away": killed_while_postgres_was_away,
    "daemon and keeper are killed": daemon_and_keeper_killed,
    "the keeper is killed while postgres is away": keeper_killed_while_postgres_was_away,
    "a verdict is swallowed and the daemon killed": verdict_swallowed_and_daemon_killed,
}


@pytest.mark.rule("AW3", "PW20", "PW35")
@pytest.mark.parametrize("fault", TABLE.values(), ids=TABLE)
async def test_one_life_one_verdict_nothing_lost_no_strays(fault, postgres, template, tmp_path):
    async with open_stage(postgres, template, tmp_path) as stage:
        await stage.insert("long", 6)
        await stage.insert("long", 2, queue="one")
        await stage.insert("short", 4)
        await stage.flowing()
        await fault(stage)
        for side in stage.sides:  # each daemon carries on: nobody else does this
            await stage.insert("short", queue=side.host.instance)
        report = await stage.judge()
        print(f"{report['samples']} samples, {sum(map(len, report['trees'].values()))} trees")
