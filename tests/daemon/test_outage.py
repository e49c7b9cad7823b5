"""Postgres goes away, the host goes down: agents that can go on go on, what they did is told later, no attempt is used up.

LEASEHOLD_TEST_AWAY is how many seconds Postgres is away in the first test; `make outage` takes a minute.
"""

import asyncio
import json
import os
import signal
import time

import pytest
from support.host import alive
from support.stage import open_stage

pytestmark = [pytest.mark.race, pytest.mark.slow, pytest.mark.timeout(240)]

AWAY = float(os.environ.get("LEASEHOLD_TEST_AWAY", "8"))
BACK = 5.0
"""Seconds after its return within which everything that ended meanwhile is settled."""
DEFAULTS = {"lease": "120s", "renewal": "15s", "margin": "20s", "grace": "10s", "poll": "30s", "max_runs": 20}
ENDED = "select count(*) = $1 from leasehold.jobs where status = 'succeeded'"
PIDS = "select identity->>'pid' from leasehold.runs where ended_at is null and agent like $1"


async def pids(stage, agent="%"):
    async with stage.sql() as sql:
        return [int(row[0]) for row in await sql.fetch(PIDS, agent)]


async def gone(some, within):
    """Wait until none of these processes lives; the seconds it took."""
    began = time.monotonic()
    while any(alive(pid) for pid in some):
        assert time.monotonic() - began < within, "agents live on"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_agents_that_end_while_postgres_is_away_are_settled_within_five_seconds_of_its_return(
    postgres, template, tmp_path
):
    async with open_stage(postgres, template, tmp_path, ("one",), **DEFAULTS) as stage:
        for number in range(8):
            script = f"echo before; until [ -e {tmp_path}/away ]; do sleep 0.2; done; sleep {(AWAY - 3) * number / 8}"
            await stage.agent(f"ends{number}", f"{script}; echo after")
            await stage.insert(f"ends{number}")
        await stage.agent("stays", f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
        await stage.insert("stays", 4)
        await stage.until("select count(*) = 12 from leasehold.runs where status = 'running'")
        ending, staying = await pids(stage, "ends%"), await pids(stage, "stays")
        postgres.stop()
        (tmp_path / "away").touch()
        await asyncio.sleep(AWAY)
        await gone(ending, 20)
        assert all(alive(pid) for pid in staying), "an agent was killed under the default lease"
        postgres.start()
        began = time.monotonic()
        await stage.until(ENDED, 8)
        seconds = time.monotonic() - began
        print(f"after {AWAY:.0f} s away, all 8 were settled {seconds:.1f} s after its return")
        assert seconds < BACK
        assert all(alive(pid) for pid in staying)
        (tmp_path / "go").touch()
        report = await stage.judge()
        assert await stage.ask("select count(*) from leasehold.runs") == 12
        assert all(len(trees) == 1 for trees in report["trees"].values())
        said = await stage.ask("select count(*) from leasehold.runs where output->'stdout'->>'bytes' = '13'")
        assert said == 8


@pytest.mark.rule("X17")
async def test_when_postgres_is_away_longer_than_the_lease_agents_die_in_time_and_their_jobs_resume(
    postgres, template, tmp_path
):
    async with open_stage(postgres, template, tmp_path, ("one",)) as stage:
        await stage.agent("stays", f"test -e {tmp_path}/go || sleep 300")
        await stage.insert("stays", 4)
        await stage.until("select count(*) = 4 from leasehold.runs where status = 'running'")
        living = await pids(stage)
        postgres.stop()
        (tmp_path / "go").touch()
        print(f"all agents were gone {await gone(living, 4.0):.1f} s after Postgres was, under a lease of 4 s")
        await stage.one.host.said("renewal_failed")
        await asyncio.sleep(2.0)  # the lease is over by now, whenever it was renewed last
        postgres.start()
        await stage.judge()
        assert await stage.ask("select bool_and(attempts = 1) from leasehold.jobs")
        first = "select array_agg(distinct reason) from leasehold.runs where outcome <> 'succeeded'"
        assert set(await stage.ask(first)) <= {"lease_lost", "daemon_restart"}


@pytest.mark.rule("GW24")
async def test_lines_that_carry_nothing_any_more_are_replaced_before_a_short_lease_runs_out(
    postgres, template, tmp_path
):
    short = {"lease": "14s", "renewal": "1s", "margin": "3s", "grace": "1s"}
    async with open_stage(postgres, template, tmp_path, ("one",), **short) as stage:
        await stage.agent("stays", f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
        await stage.insert("stays", 4)
        await stage.until("select count(*) = 4 from leasehold.runs where status = 'running'")
        worker = await stage.worker(stage.one)
        stage.one.proxy.go_deaf()
        stage.one.proxy.hear_again()  # what is there stays deaf, what comes is well
        await stage.one.host.said("renewal_failed")
        renewals = await stage.ask("select renewals from leasehold.workers where id = $1", worker)
        await stage.until("select renewals > $2 from leasehold.workers where id = $1", worker, renewals)
        (tmp_path / "go").touch()
        await stage.judge()
        assert await stage.ask("select count(*) from leasehold.runs") == 4, "a dead line cost an agent its life"
        assert await stage.ask("select count(*) from leasehold.workers") == 1


async def test_a_daemon_that_is_restarted_while_postgres_is_away_settles_what_ended_meanwhile(
    postgres, template, tmp_path
):
    async with open_stage(postgres, template, tmp_path, ("one",), **DEFAULTS) as stage:
        await stage.agent("ends", f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo done")
        await stage.insert("ends", 6)
        await stage.until("select count(*) = 6 from leasehold.runs where status = 'running'")
        living = await pids(stage)
        postgres.stop()
        await stage.one.kill()
        (tmp_path / "go").touch()
        await gone(living, 20)
        await stage.one.launch(ready=False, **DEFAULTS)
        await stage.one.host.said("database_away")
        postgres.start()
        began = time.monotonic()
        await stage.until(ENDED, 6)
        seconds = time.monotonic() - began
        print(f"all 6 were settled {seconds:.1f} s after the return of Postgres")
        assert seconds < BACK
        assert await stage.ask("select count(*) from leasehold.runs") == 6
        await stage.judge()


async def test_after_a_reboot_of_the_host_records_are_used_and_what_left_none_runs_again(postgres, template, tmp_path):
    async with open_stage(postgres, template, tmp_path, ("one",), **DEFAULTS) as stage:
        await stage.agent("ends", f"until [ -e {tmp_path}/first ]; do sleep 0.1; done; echo done")
        await stage.agent("stays", f"test -e {tmp_path}/second || sleep 300")
        ending, staying = await stage.insert("ends"), await stage.insert("stays")
        never = await stage.insert("stays")
        await stage.until("select count(*) = 3 from leasehold.runs where status = 'running'")
        stage.one.keeper(signal.SIGSTOP)
        await stage.one.kill()
        stage.one.keeper(signal.SIGCONT)
        (tmp_path / "first").touch()
        run = await stage.ask("select id from leasehold.runs where job_id = $1", ending)
        async with asyncio.timeout(20):
            while not (stage.one.host.directory / "runs" / str(run) / "exit.json").exists():
                await asyncio.sleep(0.02)
        living = await pids(stage)
        stage.one.keeper(signal.SIGKILL)
        for pid in living:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        await gone(living, 20)
        await another_boot(stage, never)
        (tmp_path / "second").touch()
        await stage.one.launch(**DEFAULTS)
        await stage.judge()
        async with stage.sql() as sql:
            rows = await sql.fetch("select job_id, outcome, reason from leasehold.runs order by job_id, id")
        again = [("lost", "host_reboot"), ("succeeded", "ok")]
        found = {job: [(row["outcome"], row["reason"]) for row in rows if row["job_id"] == job] for job in stage.jobs}
        assert found == {ending: [("succeeded", "ok")], staying: again, never: again}
        assert await stage.ask("select bool_and(attempts = 1) from leasehold.jobs")


async def another_boot(stage, forgotten):
    """Everything that is written down was so under another boot; of one run nothing is on the disk at all."""
    runs = stage.one.host.directory / "runs"
    for marker in runs.glob("*/started"):
        facts = [{**json.loads(line), "boot_id": "an-earlier-boot"} for line in marker.read_text().splitlines()]
        marker.write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    lost = await stage.ask("select id from leasehold.runs where job_id = $1", forgotten)
    for path in sorted((runs / str(lost)).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (runs / str(lost)).rmdir()
    async with stage.sql() as sql:
        await sql.execute("update leasehold.workers set boot_id = 'an-earlier-boot'")
