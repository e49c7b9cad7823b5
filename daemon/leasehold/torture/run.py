"""Run every vice against this host, on a private stack, and tell what caught it. If it fails, the doctor has no answer."""

import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from anyio import create_task_group

from leasehold.db.client import open_client
from leasehold.db.embedded import open_postgres
from leasehold.db.schema import bring_up_to_date
from leasehold.processes.link import ask_keeper
from leasehold.stack import open_daemon_process, open_keeper_process, until_ready
from leasehold.torture.cases import CASES, Case
from leasehold.torture.observer import Observer, marked
from leasehold.torture.rack import Rack
from leasehold.torture.report import NOT_CLAIMED, NOT_TRIED, Finding, Report

CGROUPS = Path("/sys/fs/cgroup")
LACKS = {
    "pids": "no pids limit on this host",
    "memory": "no memory limit on this host",
    "cgroup": "no cgroup of ours on this host",
}


async def torture(database_url: str | None = None, containment: str = "auto") -> Report:
    """Everything, start to end, in a temporary directory. Nothing of it is left afterwards, and that is checked."""
    began = time.monotonic()
    left: list[str] = []
    with tempfile.TemporaryDirectory(prefix="leasehold-torture-", ignore_cleanup_errors=True) as directory:
        try:
            said, findings = await _rack(Path(directory), database_url, containment)
        finally:
            left = [*_clear(directory), *_groups(Path(directory))]
    unclaimed = {case.agent for case, finding in zip(CASES, findings, strict=True) if finding.verdict == NOT_CLAIMED}
    escaped = [each for each in left if each.rpartition("/")[2] in unclaimed]
    return Report(
        said, findings, [each for each in left if each not in escaped], escaped, round(time.monotonic() - began, 1)
    )


def _clear(directory: str) -> list[str]:
    """What is still there of ours, by the directory in its arguments: it is told, and does not stay."""
    left = marked(directory)
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid} {mark}" for pid, mark in left]


def _groups(directory: Path) -> list[str]:
    """Cgroups of our keepers that are still there; only an empty one can be removed, so they are only told."""
    ours = {f"leasehold-{path.read_text(encoding='ascii')[:12]}" for path in directory.glob("*/keeper.id")}
    walk = os.walk(CGROUPS)  # other people's come and go meanwhile, and it does not mind
    return [f"cgroup {path}/{name}" for path, names, _ in walk for name in names if name in ours]


async def _rack(directory: Path, database_url: str | None, containment: str) -> tuple[dict[str, Any], list[Finding]]:
    (directory / "marks").mkdir()
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_database(directory, database_url))
        await stack.enter_async_context(_stack(directory / "host", dsn, "torture", (), containment))
        await stack.enter_async_context(
            _stack(directory / "clock", dsn, "torture-clock", ("leasehold.torture.jump",), containment)
        )
        client = await stack.enter_async_context(open_client(dsn))
        await until_ready(client, 2)
        said: dict[str, Any] = (await ask_keeper(directory / "host" / "keeper.sock"))["containment"]
        has = {"", said["rung"], *said.get("enforced", ())}
        observer = Observer(str(directory / "marks"))
        rack = Rack(client, observer, directory / "marks", said["rung"])
        jobs = await rack.put([case for case in CASES if case.needs in has])
        async with create_task_group() as group:
            group.start_soon(observer.look_forever)
            found = await rack.watch(jobs)
            group.cancel_scope.cancel()
    findings = {case.agent: found[job] for job, case in jobs.items()}
    return said, [findings.get(case.agent) or _not_tried(case) for case in CASES]


def _not_tried(case: Case) -> Finding:
    return Finding(case.tried, case.expected, LACKS[case.needs], None, NOT_TRIED)


@asynccontextmanager
async def _stack(state: Path, dsn: str, queue: str, prefix: Sequence[str], containment: str) -> AsyncIterator[None]:
    """A keeper and a daemon for one queue, the daemon with room for every case."""
    state.mkdir()
    settings = {"instance": queue, "queues": queue, "max_runs": "64", "grace": "2s"}
    with (state / "daemon.log").open("ab") as lines:
        async with (
            open_keeper_process(state, "--containment", containment, module=(*prefix, "leasehold.keeper")),
            open_daemon_process(state, dsn, stdout=lines, module=(*prefix, "leasehold"), **settings),
        ):
            yield


@asynccontextmanager
async def _database(directory: Path, database_url: str | None) -> AsyncIterator[str]:
    """A server of our own, or a database of our own on a server that we were given; migrated, and gone afterwards."""
    if database_url is None:
        async with open_postgres(directory / "postgres" / "data", durable=False) as dsn:
            await bring_up_to_date(dsn)
            yield dsn
        return
    name = f"leasehold_torture_{secrets.token_hex(6)}"
    async with open_client(database_url) as admin:
        await admin.rows(f"create database {name}")
        try:
            dsn = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
            await bring_up_to_date(dsn)
            yield dsn
        finally:
            await admin.rows(f"drop database {name} with (force)")
