"""One run's trouble, one row, one dead line: what it must not become. Each was somebody's whole daemon, or somebody's true outcome."""

import asyncio
import json
import signal
import time

import pytest
from support.stage import open_stage

LONG = {"lease": "120s", "renewal": "15s", "margin": "20s", "grace": "10s", "poll": "30s", "max_runs": 20}
RUNNING = "select count(*) = $1 from leasehold.runs where status = 'running'"
pytestmark = pytest.mark.race


async def test_what_an_agent_said_while_postgres_was_away_longer_than_the_lease_is_its_outcome(
    postgres, template, tmp_path
):
    says_no = '{"type":"result","ok":false,"message":"no luck","value":42}'
    async with open_stage(postgres, template, tmp_path, ("one",)) as stage:
        await stage.agent(
            "ends", f"echo before; until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo '{says_no}'; echo after"
        )
        await stage.insert("ends", 4)
        await stage.until(RUNNING, 4)
        postgres.stop()
        (tmp_path / "go").touch()
        await asyncio.sleep(9)  # twice the lease
        await stage.one.proxy.refuse()
        postgres.start()
        async with stage.sql() as other, other.transaction():
            await other.execute(
                "lock table leasehold.output in exclusive mode"
            )  # the news of the lost lease comes first
            await stage.one.proxy.listen()
            await stage.one.host.said("lease_lost")
        await stage.until(
            "select count(*) = 4 from leasehold.runs where ended_at is not null or late_outcome is not null"
        )
        async with stage.sql() as sql:
            for run in await sql.fetch("select * from leasehold.runs"):
                told = json.loads(run["late_outcome"]) if run["late_outcome"] else run
                assert (told["outcome"], told["reason"]) == ("failed", "agent_error")
                assert json.loads(run["output"])["stdout"]["bytes"] == len("before\nafter\n")


async def test_an_agent_that_we_hold_back_is_not_called_idle(postgres, template, tmp_path):
    async with open_stage(postgres, template, tmp_path, ("one",), **LONG) as stage:
        await stage.agent(
            "floods", f"until [ -e {tmp_path}/go ]; do sleep 0.1; echo; done; head -c 60000000 /dev/zero; echo done"
        )
        async with stage.sql() as sql, stage.sql() as other:
            await sql.execute("update leasehold.agents set idle_timeout = '2s'")
            await stage.insert("floods")
            await stage.until(RUNNING, 1)
            async with other.transaction():
                await other.execute("lock table leasehold.output in exclusive mode")
                (tmp_path / "go").touch()
                await stage.one.host.said("run_held")
                await asyncio.sleep(6)
            await stage.until("select outcome = 'succeeded' from leasehold.runs")


async def test_told_to_stop_while_postgres_is_away_it_leaves_in_time(postgres, template, tmp_path):
    async with open_stage(postgres, template, tmp_path, ("one",), **LONG, stop_mode="detach") as stage:
        await stage.agent("talks", "while :; do echo x; sleep 0.05; done")
        await stage.insert("talks")
        await stage.until(RUNNING, 1)
        postgres.stop()
        began = time.monotonic()
        stage.one.signal(signal.SIGTERM)
        await stage.one.host.said("daemon_stopped", within=60)
        assert time.monotonic() - began < 45
        postgres.start()


async def test_an_agent_that_makes_a_socket_of_its_output_harms_only_itself(postgres, template, tmp_path):
    wreck = "import os, socket; os.unlink('../stdout'); socket.socket(socket.AF_UNIX).bind('../stdout')"
    async with open_stage(postgres, template, tmp_path, ("one",)) as stage:
        await stage.agent("wrecks", f'python3 -c "{wreck}"; until [ -e {tmp_path}/go ]; do sleep 0.1; done')
        await stage.insert("wrecks")
        await stage.until(RUNNING, 1)
        await stage.one.kill()
        (tmp_path / "go").touch()
        await stage.one.launch()
        await stage.insert("short")
        await stage.judge()
