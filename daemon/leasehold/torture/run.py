"""Run every vice against this host, on a private stack, and tell what caught it. If it fails, the doctor has no answer."""

import hashlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from anyio import create_task_group, move_on_after, sleep

from leasehold.db.client import Client, open_client
from leasehold.db.embedded import open_postgres
from leasehold.db.schema import bring_up_to_date
from leasehold.processes.link import ask_keeper
from leasehold.stack import open_daemon_process, open_keeper_process, until_ready
from leasehold.torture.cases import CASES, PROMPT, Case, Missed, Seen
from leasehold.torture.observer import Observer, marked

PATIENCE = 40.0
"""Seconds for all cases together."""
OK, NOT_CAUGHT, NOT_CLAIMED, NOT_RUN = "ok", "NOT CAUGHT", "not claimed", "not run"
LACKS = {
    "pids": "this host enforces no pids limit",
    "memory": "this host enforces no memory limit",
    "cgroup": "this host lets us make no cgroup",
}


@dataclass(slots=True)
class Finding:
    """One row of the table."""

    tried: str
    expected: str
    caught_by: str
    seconds: float | None
    verdict: str
    story: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """The table, and what it was measured on."""

    containment: dict[str, Any]
    findings: list[Finding]
    left_behind: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Did everything that this host claims to catch get caught?"""
        return not self.left_behind and all(each.verdict != NOT_CAUGHT for each in self.findings)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}


class Rack:
    """The private stack, and one job for each case that this host can run."""

    def __init__(self, client: Client, observer: Observer, token: str, containment: dict[str, Any]) -> None:
        self._client = client
        self._observer = observer
        self._token = token
        self._rung = str(containment["rung"])
        self._has = {self._rung, *containment.get("enforced", ())}

    async def put(self, cases: Sequence[Case]) -> dict[int, Case]:
        """Describe agents and insert jobs, in plain SQL."""
        jobs = {}
        for case in cases:
            command = [sys.executable, "-m", "leasehold.torture", case.kind, self._mark(case)]
            columns = {"name": case.agent, "command": command, **case.columns}
            places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
            await self._client.rows(
                f"insert into leasehold.agents ({', '.join(columns)}) values ({places})", *columns.values()  # noqa: S608 names are ours
            )  # fmt: skip
        for case in cases:
            rows = await self._client.rows(
                "insert into leasehold.jobs (agent, prompt, queue) values ($1, $2, $3) returning id", case.agent, PROMPT, case.queue
            )  # fmt: skip
            jobs[rows[0]["id"]] = case
        return jobs

    def can(self, case: Case) -> bool:
        """Has this host what the case is about?"""
        return not case.needs or case.needs in self._has

    async def watch(self, jobs: dict[int, Case]) -> dict[int, Finding]:
        """Cancel those that ask for it, judge each at its end; what does not end in time was not caught."""
        found: dict[int, Finding] = {}
        asked: set[int] = set()
        with move_on_after(PATIENCE):
            while len(found) < len(jobs):
                for job in await self._ready(set(jobs) - asked):
                    asked.add(job)
                    if jobs[job].cancel:
                        await self._client.cancel(job, "torture")
                for job in await self._ended(set(jobs) - set(found)):
                    found[job] = await self._judge(job, jobs[job])
                await sleep(0.05)
        for job, case in jobs.items():
            if job not in found:
                found[job] = await self._finding(job, case, f"still live after {PATIENCE:.0f} s", None, NOT_CAUGHT)
        return found

    async def _ready(self, jobs: set[int]) -> list[int]:
        rows = await self._client.rows(
            "select distinct job_id from leasehold.events where job_id = any($1) and phase = 'ready'", list(jobs)
        )
        return [row["job_id"] for row in rows]

    async def _ended(self, jobs: set[int]) -> list[int]:
        rows = await self._client.rows(
            "select id from leasehold.jobs where id = any($1) and finished_at is not null", list(jobs)
        )
        return [row["id"] for row in rows]

    async def _judge(self, job: int, case: Case) -> Finding:
        self._observer.look()  # after the verdict nothing may live
        left = self._observer.now[self._mark(case)]
        seen = await self._seen(job, case)
        seconds = _seconds(seen)
        if left:
            missed = f"{left} of its processes outlived its verdict"
            if self._rung in case.escapes:
                return await self._finding(
                    job, case, f"{missed}; the rung {self._rung} does not claim it", seconds, NOT_CLAIMED
                )
            return await self._finding(job, case, missed, seconds, NOT_CAUGHT)
        try:
            return await self._finding(job, case, case.check(seen), seconds, OK)
        except Missed as missed:
            return await self._finding(job, case, str(missed), seconds, NOT_CAUGHT)

    async def _finding(self, job: int, case: Case, caught_by: str, seconds: float | None, verdict: str) -> Finding:
        story = await self._client.why(job) if verdict == NOT_CAUGHT else []
        return Finding(case.tried, case.expected, caught_by, seconds, verdict, story)

    async def _seen(self, job: int, case: Case) -> Seen:
        [found] = await self._client.rows("select * from leasehold.jobs where id = $1", job)
        runs = await self._client.rows(
            "select * from leasehold.runs where job_id = $1 order by attempt desc limit 1", job
        )
        events = await self._client.events(job, 0)
        stored = await self._client.rows(
            "select bytes from leasehold.output where run_id = $1 and stream = 'stdout' order by byte_offset",
            runs[0]["id"],
        )
        digest = hashlib.sha256(b"".join(row["bytes"] for row in stored)).hexdigest()
        return Seen(
            run=runs[0], job=found, kinds=tuple(event["kind"] for event in events),
            phases={event["phase"]: event["data"] for event in events if event["phase"]},
            stored=sum(len(row["bytes"]) for row in stored), digest=digest,
            most=self._observer.most[self._mark(case)], rung=self._rung,
        )  # fmt: skip

    def _mark(self, case: Case) -> str:
        return f"{self._token}.{case.agent}"


def _seconds(seen: Seen) -> float:
    """From the moment when its end was due (cancelled, leader gone, else started) until nothing of it was left."""
    ended: float = seen.run["ended_at"].timestamp()
    if "leaving" in seen.phases:
        due = float(seen.phases["leaving"]["at"])
    else:
        due = (seen.job["cancel_requested_at"] or seen.run["started_at"] or seen.run["claimed_at"]).timestamp()
    return round(ended - due, 2)


async def torture(database_url: str | None = None, containment: str = "auto") -> Report:
    """Everything, start to end, in a temporary directory. Nothing of it is left afterwards, and that is checked."""
    began, token = time.monotonic(), f"torture-{secrets.token_hex(6)}"
    left: list[str] = []
    with tempfile.TemporaryDirectory(prefix="leasehold-", ignore_cleanup_errors=True) as directory:
        try:
            said, findings = await _rack(Path(directory), token, database_url, containment)
        finally:
            left = [*_clear(token), *_clear(directory), *_groups(Path(directory))]
    return Report(said, findings, left, round(time.monotonic() - began, 1))


def _clear(word: str) -> list[str]:
    """What is still there of ours, by its mark: it is told, and does not stay."""
    left = marked(word)
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid} {mark}" for pid, mark in left]


def _groups(directory: Path) -> list[str]:
    """Cgroups of our keepers that are still there; only an empty one can be removed, so they are only told."""
    keepers = [path.read_text(encoding="ascii")[:12] for path in directory.glob("*/keeper.id")]
    return [f"cgroup {path}" for keeper in keepers for path in Path("/sys/fs/cgroup").glob(f"**/leasehold-{keeper}")]


async def _rack(
    state: Path, token: str, database_url: str | None, containment: str
) -> tuple[dict[str, Any], list[Finding]]:
    observer = Observer(token)
    async with (
        _database(state, token, database_url) as dsn,
        _stack(state / "host", dsn, "torture", (), containment),
        _stack(state / "clock", dsn, "torture-clock", ("leasehold.torture.jump",), containment),
        open_client(dsn) as client,
    ):
        await until_ready(client, 2)
        said: dict[str, Any] = (await ask_keeper(state / "host" / "keeper.sock"))["containment"]
        rack = Rack(client, observer, token, said)
        jobs = await rack.put([case for case in CASES if rack.can(case)])
        async with create_task_group() as group:
            group.start_soon(observer.look_forever)
            found = await rack.watch(jobs)
            group.cancel_scope.cancel()
    by_case = {id(case): found[job] for job, case in jobs.items()}
    return said, [by_case.get(id(case)) or _not_run(case) for case in CASES]


def _not_run(case: Case) -> Finding:
    return Finding(case.tried, case.expected, LACKS[case.needs], None, NOT_RUN)


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
async def _database(state: Path, token: str, database_url: str | None) -> AsyncIterator[str]:
    """A server of our own, or a database of our own on a server that we were given; migrated, and gone afterwards."""
    if database_url is None:
        async with open_postgres(state / "postgres" / "data", durable=False) as dsn:
            await bring_up_to_date(dsn)
            yield dsn
        return
    name = f"leasehold_{token.replace('-', '_')}"
    async with open_client(database_url) as admin:
        await admin.rows(f"create database {name}")
        try:
            dsn = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
            await bring_up_to_date(dsn)
            yield dsn
        finally:
            await admin.rows(f"drop database {name} with (force)")
