"""A Postgres server of a test's own, to be stopped, killed and frozen on cue. Commits are real: a killed server keeps them."""

import asyncio
import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

import asyncpg
from leasehold.db.embedded import PORT, _initialise, _options, find_programs
from leasehold.db.migrate import migrate
from leasehold.db.standing import dying_with_us, find_standing, give

PATIENCE = 30.0


def away_from_here(coroutine):
    """Run a coroutine to its end in a thread, whatever loop lives here."""
    found = {}

    def live():
        try:
            found["answer"] = asyncio.run(coroutine)
        except Exception as error:
            found["error"] = error

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    if "error" in found:
        raise found["error"]
    return found["answer"]


class Postgres:
    """One server on one data directory. `start` again after whatever was done to it."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.data = self.directory / "data"
        self.sockets = self.directory / "s"
        self.process = None
        self.frozen = []

    async def prepare(self):
        """initdb, once."""
        self.programs, self.standing = await find_programs(), await find_standing()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        await _initialise(self.programs, self.data, self.standing, durable=False)

    def dsn(self, name="postgres", host=None):
        return f"postgresql://postgres@/{name}?host={host or self.sockets}&port={PORT}"

    @property
    def socket(self):
        return self.sockets / f".s.PGSQL.{PORT}"

    def start(self):
        """Start it and wait until it answers."""
        assert self.process is None
        give(self.data, self.standing.uid)
        command = [*self.standing.prefix, *dying_with_us(self.programs / "postgres"), "-D", str(self.data)]
        command += [*_options(self.sockets, 200, durable=False), "-c", "synchronous_commit=on"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)

    def answers(self):
        async def ask():
            await (await asyncpg.connect(self.dsn(), timeout=5)).close(timeout=5)

        try:
            away_from_here(ask())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def stop(self):
        """Fast shutdown: every connection is told and closed."""
        if self.process is not None:
            self.thaw()
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self):
        """SIGKILL to the server and all its backends, as a lost machine would."""
        family = self.family()
        for pid in family:
            signal_quietly(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None
        while any(is_postgres(pid) for pid in family):
            time.sleep(0.01)

    def freeze(self):
        """SIGSTOP to the server and all its backends: connections stay, new ones are accepted by the kernel, nobody answers."""
        os.kill(self.process.pid, signal.SIGSTOP)  # it first: it forks no more
        self.frozen = self.family()
        for pid in self.frozen:
            signal_quietly(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.frozen:
            signal_quietly(pid, signal.SIGCONT)
        self.frozen = []

    def family(self):
        """The server and its children."""
        mine = self.process.pid
        return [mine, *(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == mine)]

    async def database(self, template=None):
        """A fresh database; its DSN."""
        name = f"faults_{secrets.token_hex(4)}"
        admin = await asyncpg.connect(self.dsn())
        await admin.execute(f"create database {name}" + (f" template {template}" if template else ""))
        await admin.close()
        return name

    async def migrated(self):
        """Make the template of our schema."""
        name = await self.database()
        connection = await asyncpg.connect(self.dsn(name))
        await migrate(connection)
        await connection.close()
        return name


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def is_postgres(pid):
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def signal_quietly(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
