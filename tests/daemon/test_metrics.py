"""What Prometheus reads of a real daemon over real HTTP: true numbers, no job in a label, and no harm from who reads."""

import asyncio
import os
import re
import socket
from contextlib import closing
from urllib.request import urlopen

import asyncpg
import pytest
from leasehold import __version__
from prometheus_client.parser import text_string_to_metric_families
from support.keeper import KeeperProcess

ANY_PORT = "127.0.0.1:0"


class Page:
    """The numbers of one daemon, read anew each time."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/metrics"

    async def text(self):
        return (await asyncio.to_thread(lambda: urlopen(self.url, timeout=10).read())).decode()

    async def read(self):
        families = text_string_to_metric_families(await self.text())
        return [sample for family in families for sample in family.samples]

    async def value(self, name, **labels):
        return next((each.value for each in await self.read() if (each.name, each.labels) == (name, labels)), None)

    async def until(self, name, expected, within=20.0, **labels):
        deadline = asyncio.get_running_loop().time() + within
        while (found := await self.value(name, **labels)) != expected:
            assert asyncio.get_running_loop().time() < deadline, f"still {found}, not {expected}: {name} {labels}"
            await asyncio.sleep(0.05)


@pytest.fixture
def page(host):
    """Where the daemon that was started last serves its numbers."""

    async def find():
        return Page((await host.said("metrics_ready"))["port"])

    return find


async def test_a_run_is_seen_in_the_numbers_from_its_place_to_its_outcome(host, agent, insert, ends, page, tmp_path):
    gate = tmp_path / "gate"
    await agent("patient", f"printf 0123456789; until [ -e {gate} ]; do sleep 0.05; done; exit 3")
    async with host.daemon(metrics_address=ANY_PORT, max_runs=3):
        numbers = await page()
        assert await numbers.value("leasehold_places_free") == 3
        assert await numbers.value("leasehold_daemon_info", version=__version__) == 1
        job = await insert("patient")
        await numbers.until("leasehold_runs", 1, state="running")
        await numbers.until("leasehold_output_bytes_total", 10)
        assert await numbers.value("leasehold_places_free") == 2
        gate.touch()
        await ends(job, "failed")
        await numbers.until("leasehold_run_outcomes_total", 1, outcome="failed", reason="exit_code")
        await numbers.until("leasehold_places_free", 3)
        assert [await numbers.value("leasehold_runs", state=each) for each in ("running", "settling")] == [0, 0]
        assert await numbers.value("leasehold_claimed_runs_total") == 1
        assert await numbers.value("leasehold_claims_total") >= 2
        await numbers.until("leasehold_output_backlog_bytes", 0)
        assert await numbers.value("leasehold_unkillable_runs") == 0


async def test_no_label_names_a_job_a_run_or_an_agent(host, agent, insert, ends, page):
    await agent("some-agent", "echo hello")
    async with host.daemon(metrics_address=ANY_PORT):
        numbers = await page()
        await ends(await insert("some-agent"), "succeeded")
        await numbers.until("leasehold_run_outcomes_total", 1, outcome="succeeded", reason="ok")
        assert {label for each in await numbers.read() for label in each.labels} <= {
            "state", "outcome", "reason", "version", "le",
        }  # fmt: skip
        assert "some-agent" not in await numbers.text()


async def test_renewals_are_timed_and_the_lease_is_counted_down(host, page):
    async with host.daemon(metrics_address=ANY_PORT, lease="60s", margin="20s", renewal="500ms"):
        numbers = await page()
        await numbers.until("leasehold_keeper_connected", 1)
        assert 0 < await numbers.value("leasehold_lease_seconds_left") <= 40
        first = await numbers.value("leasehold_renewal_seconds_count")
        while await numbers.value("leasehold_renewal_seconds_count") < first + 2:
            await asyncio.sleep(0.05)
        assert await numbers.value("leasehold_renewal_seconds_sum") > 0


@pytest.mark.rule("GW12")
async def test_a_database_that_goes_away_is_seen_and_its_return_too_and_nothing_else_of_it(host, sql, server, page):
    name, user = await sql.fetchrow("select current_database(), session_user")
    async with host.daemon(metrics_address=ANY_PORT, renewal="500ms"):
        numbers = await page()
        await numbers.until("leasehold_database_connected", 1)
        await refuse(server, name, away=True)
        await numbers.until("leasehold_database_connected", 0)
        assert not {name, user} & set(re.findall(r"[\w-]+", await numbers.text())), (
            "a number, and no words of the server"
        )
        await refuse(server, name, away=False)
        await numbers.until("leasehold_database_connected", 1)


async def refuse(server, name, *, away):
    """The server lets nobody into the database, or everybody again."""
    admin = await asyncpg.connect(server)
    await admin.execute(f"alter database {name} with allow_connections {str(not away).lower()}")
    if away:
        await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
    await admin.close()


async def test_a_keeper_that_is_gone_is_seen_and_its_return_too(host, page, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(host.directory / "notify.sock"))  # a service: it starts no keeper itself
    keeper = KeeperProcess(host.directory, "auto")
    try:
        keeper.start()
        async with host.daemon(metrics_address=ANY_PORT):
            numbers = await page()
            await numbers.until("leasehold_keeper_connected", 1)
            keeper.kill()
            await numbers.until("leasehold_keeper_connected", 0)
            keeper.start()
            await numbers.until("leasehold_keeper_connected", 1)
    finally:
        keeper.close()


async def test_who_says_nothing_or_leaves_early_harms_nobody(host, agent, insert, ends, page):
    await agent("quick", "true")
    async with host.daemon(metrics_address=ANY_PORT) as process:
        numbers = await page()
        port = int(numbers.url.rpartition(":")[2].partition("/")[0])
        with closing(socket.create_connection(("127.0.0.1", port))):  # says nothing, and is let go after a while
            await ends(await insert("quick"), "succeeded")
            assert "leasehold_daemon_info" in await numbers.text()
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", port))) as rude:
                rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert "leasehold_daemon_info" in await numbers.text()
        with closing(socket.create_connection(("127.0.0.1", port))):  # it does not keep the daemon from leaving
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 20) == 0
    assert "Traceback" not in host.log_file.read_text()


async def test_a_port_that_is_taken_is_named_at_once_and_nothing_is_started(host, sql):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await host.launch(metrics_address=address)
        assert await asyncio.wait_for(process.wait(), 20) == 78
    said = host.log_file.read_text()
    assert f"metrics_address: cannot listen on {address}" in said and "LEASEHOLD_METRICS_ADDRESS" in said
    assert await sql.fetchval("select count(*) from leasehold.workers") == 0


async def test_nothing_listens_unless_it_is_asked_for(host):
    async with host.daemon() as process:
        with open(f"/proc/{process.pid}/net/tcp") as table:
            listening = {line.split()[9] for line in table.readlines()[1:] if line.split()[3] == "0A"}
        assert not listening & sockets(process.pid)
        assert all(line["event"] != "metrics_ready" for line in host.lines())


def sockets(pid):
    """Inodes of the sockets that a process has open."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    return found
