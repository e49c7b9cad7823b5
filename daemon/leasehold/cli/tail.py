"""tail: what jobs say, as they say it. Reads by cursors that never skip, so it can be stopped and started."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.text import Text

from leasehold.cli.console import ask, out, print_json, printable
from leasehold.cli.jobs import Dsn, Json
from leasehold.db.client import Client
from leasehold.errors import LeaseholdError

PAUSE = 0.3
"""Seconds between two looks while following."""
ENDED = frozenset({"succeeded", "failed", "blocked", "timed_out", "cancelled"})
LEVELS = {"error": "red", "warning": "yellow", "debug": "dim"}


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(tail)


def tail(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", min=1, help="One job; else all, from now on.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show events and output of one job, or the events of all jobs as they happen."""
    if job is None:
        ask(database_url, lambda client: _everything(client, as_json))
    else:
        ask(database_url, lambda client: _job(client, job, follow, as_json))


@dataclass(slots=True)
class Shown:
    """How far one job has been shown."""

    seq: int = 0
    offsets: dict[tuple[int, str], int] = field(default_factory=dict)


async def _job(client: Client, job: int, follow: bool, as_json: bool) -> None:
    shown = Shown()
    while True:
        state = await client.job(job)  # read first: what is there now was written before the end that it may show
        if state is None:
            raise LeaseholdError(f"there is no job {job}", hint="`leasehold status` lists the newest ones.")
        while rows := await _news(client, job, shown):
            for row in rows:
                _show(row, as_json)
        if not follow or state["status"] in ENDED:
            return
        await asyncio.sleep(PAUSE)


async def _news(client: Client, job: int, shown: Shown) -> list[dict[str, Any]]:
    events = await client.events(job, shown.seq)
    output = await client.output(job, shown.offsets)
    for event in events:
        shown.seq = event["seq"]
    for chunk in output:
        shown.offsets[chunk["run_id"], chunk["stream"]] = chunk["byte_offset"] + len(chunk["bytes"])
    return sorted([*events, *output], key=lambda row: row["at"])


async def _everything(client: Client, as_json: bool) -> None:
    cursor = await client.changes_start()
    while True:
        for row in await client.changes(cursor):
            cursor = row["xid"], row["job_id"], row["seq"]
            _show(row, as_json)
        await asyncio.sleep(PAUSE)


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    when = time.strftime("%H:%M:%S", row["at"].astimezone().timetuple())
    who = f"job {row['job_id']} " if "job_id" in row else ""
    if "bytes" in row:
        style = "dim" if row["stream"] == "stdout" else "dim red"
        for line in bytes(row["bytes"]).decode("utf-8", "replace").splitlines():
            out.print(Text.assemble((f"{when} ", "dim"), ("  | ", "dim"), (printable(line), style)))
        return
    kind = Text(f"{row['kind']:<16}", style=LEVELS.get(row["level"], "bold"))
    out.print(Text.assemble((f"{when} ", "dim"), who, kind, " ", printable(row["message"] or "")))
