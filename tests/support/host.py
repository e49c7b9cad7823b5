"""A host for tests: real daemons as real processes, with a state directory, a keeper, and a log that can be read."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

from support import forkserver

ALIVE = set("RSDTtI")


class Host:
    """One state directory and what runs on it."""

    def __init__(self, directory, dsn, instance):
        self.directory = directory
        self.dsn = dsn
        self.instance = instance
        self.log_file = directory / "daemon.log"
        self.environment = {}
        self.start = forkserver.start

    @asynccontextmanager
    async def daemon(self, **settings):
        """A daemon that is ready. Whatever the test does to it, it is gone afterwards."""
        process = await self.launch(**settings)
        try:
            await self.said("daemon_ready", pid=process.pid)
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()

    async def launch(self, **settings):
        self.directory.mkdir(parents=True, exist_ok=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
        env |= {
            "LEASEHOLD_DATABASE_URL": self.dsn, "LEASEHOLD_STATE_DIR": str(self.directory),
            "LEASEHOLD_INSTANCE": self.instance, "LEASEHOLD_LOG_FORMAT": "json", "LEASEHOLD_LOG_LEVEL": "debug",
            "LEASEHOLD_STOP_MODE": "interrupt", "LEASEHOLD_POLL": "60s",
        }  # fmt: skip
        env |= {f"LEASEHOLD_{name.upper()}": str(value) for name, value in settings.items()} | self.environment
        self.mark = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as lines:
            return await self.start("daemon", env=env, stdout=lines, stderr=lines)

    def lines(self, *, everything=False):
        """What the daemon logged since it was last started."""
        raw = self.log_file.read_bytes()[0 if everything else self.mark :] if self.log_file.exists() else b""
        return [json.loads(line) for line in raw.splitlines() if line.startswith(b"{")]

    async def said(self, event, within=30.0, pid=None, **words):
        """Wait until the log has such a line."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            for line in self.lines():
                if line["event"] == event and words.items() <= line.items():
                    return line
            if asyncio.get_running_loop().time() > deadline or (pid is not None and not alive(pid)):
                raise AssertionError(f"no {event} {words} in:\n{self.log_file.read_text()[self.mark :]}")
            await asyncio.sleep(0.02)

    def keeper_pids(self):
        return [
            pid
            for pid in pids()
            if b"leasehold.keeper" in cmdline(pid) and str(self.directory).encode() in cmdline(pid)
        ]

    def strays(self):
        """Everything that still carries our keeper's marker."""
        try:
            mark = b"LEASEHOLD_KEEPER_ID=" + (self.directory / "keeper.id").read_bytes().strip()
        except FileNotFoundError:
            return []
        return [pid for pid in pids() if mark in environ(pid) and alive(pid)]

    def clear(self):
        for pid in self.keeper_pids():
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        for pid in self.strays():
            os.kill(pid, signal.SIGKILL)


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def cmdline(pid):
    return read(f"/proc/{pid}/cmdline")


def environ(pid):
    return read(f"/proc/{pid}/environ").split(b"\0")


def read(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def alive(pid):
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0].decode() in ALIVE
