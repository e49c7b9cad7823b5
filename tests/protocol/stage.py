"""Where the replays play: a host whose daemon talks to keeper and Postgres through taps, and ways to wait for facts."""

import asyncio
import json
import os
from contextlib import asynccontextmanager

from protocol.sql_tap import open_sql_tap
from protocol.wire_tap import open_wire_tap
from support.host import Host
from support.keeper import KeeperProcess

LEASE = 8 if os.getloadavg()[0] > 4 * (os.cpu_count() or 1) else 4
"""Seconds; on a machine so busy that a daemon's start takes as long as a lease, longer."""
SHORT = {"lease": f"{LEASE}s", "renewal": f"{LEASE / 5}s", "margin": f"{LEASE * 3 / 8}s", "grace": "0.5s"}
"""For a daemon that is to lose its lease."""
PATIENT = {**SHORT, "lease": "60s", "margin": "20s"}
"""For everybody else."""

FORGET = """
    set session_replication_role = replica;
    delete from leasehold.runs;
    update leasehold.heads set run_id = null, run_token = null;
    update leasehold.jobs set status = 'queued';
    set session_replication_role = origin;
"""
"""The primary that we have now never saw a claim: played by the old one, with a memory gap."""


class Stage:
    """Host A: a keeper started by us, and taps on both of the daemon's wires."""

    def __init__(self, directory, wire, base, base_dsn):
        self.keeper = KeeperProcess(directory, "auto")
        self.wire, self.base = wire, base
        self.host = Host(directory, base_dsn, "one")
        self._socket = f"{directory}/tap.sock"

    def daemon(self, **settings):
        """The real daemon, its wires tapped."""
        return self.host.daemon(**{**PATIENT, "keeper_socket": self._socket, **settings})

    def launch(self, **settings):
        """The same, not awaited."""
        return self.host.launch(**{**PATIENT, "keeper_socket": self._socket, **settings})

    def identity(self):
        """Who the keeper is."""
        return (self.keeper.directory / "keeper.id").read_text().strip()

    async def delivered(self, cue):
        """What was released has reached the keeper, and been dealt with: it is one thread, and answers us after that."""
        await asyncio.wait_for(cue.passed.wait(), 20)
        for _ in range(2):
            self.keeper.call(hello=False).ask("about")

    async def record(self, run):
        """Wait for a run's exit record."""
        path = self.keeper.path(run, "exit.json")
        await until(path.exists, f"the exit record of run {run}")
        return json.loads(path.read_text())


@asynccontextmanager
async def open_stage(directory, dsn):
    """Host A with its keeper running and no daemon yet; nothing of it is left afterwards."""
    directory.mkdir(parents=True)
    keeper_socket = directory / "keeper.sock"
    async with (
        open_wire_tap(f"{directory}/tap.sock", keeper_socket) as wire,
        open_sql_tap(dsn) as (base, base_dsn),
    ):
        stage = Stage(directory, wire, base, base_dsn)
        stage.keeper.start()
        try:
            yield stage
        finally:
            stage.keeper.close()
            stage.host.clear()


async def until(fact, what="a fact", within=20.0):
    """Wait for a fact; answers it."""
    deadline = asyncio.get_running_loop().time() + within
    while not (found := fact()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited {within} s for {what}")
        await asyncio.sleep(0.01)
    return found
