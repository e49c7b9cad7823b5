"""messages, artifacts: the conversation of a job or thread in words, and what came of it. If it fails, one command fails."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.text import Text

from leasehold.cli.console import ask, out, print_json, printable, table
from leasehold.cli.jobs import Dsn, JobId, Json
from leasehold.cli.tail import ENDED, PAUSE
from leasehold.db.client import Client
from leasehold.errors import LeaseholdError

STYLES = {"user": "bold cyan", "assistant": "bold green", "system": "dim", "tool": "dim"}
COLUMNS = ("id", "kind", "title", "content_type", "bytes", "truncated", "created_at")


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    app.command()(messages)
    app.command()(artifacts)


def messages(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", min=1, help="One job; else give a thread.")] = None,
    thread: Annotated[str | None, typer.Option(help="All jobs of this thread.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on; of a job, until it has ended.")] = False,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show what users and agents said to each other, and with --follow how it grows."""
    if (job is None) == (thread is None):
        raise typer.BadParameter("give a job or --thread, and not both")
    ask(database_url, lambda client: _messages(client, job, thread, follow, as_json))


def artifacts(
    job: JobId,
    show: Annotated[int | None, typer.Option(help="Write the content of this one to stdout.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """List what a job has made: plans, diffs, reports."""
    if show is not None:
        found = ask(database_url, lambda client: client.artifact(job, show))
        if found is None:
            raise LeaseholdError(f"job {job} has no artifact {show}", hint=f"`leasehold artifacts {job}` lists them.")
        if as_json:
            print_json(found)
        elif sys.stdout.isatty():
            out.print(Text("\n".join(map(printable, found["content"].split("\n")))))
        else:
            sys.stdout.write(found["content"])
        return
    rows = ask(database_url, lambda client: client.artifacts(job))
    if as_json:
        print_json({"artifacts": rows})
    else:
        out.print(table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]))


@dataclass(slots=True)
class Shown:
    """How far the messages have been shown."""

    cursor: str | None = None
    texts: dict[int, str] = field(default_factory=dict)
    rows: dict[int, tuple[str, str]] = field(default_factory=dict)  # content and status, as JSON
    last: int | None = None  # whose words were shown last


async def _messages(client: Client, job: int | None, thread: str | None, follow: bool, as_json: bool) -> None:
    shown = Shown()
    while True:
        state = (
            await client.job(job) if job is not None else None
        )  # read first: what is there now was said before its end
        if job is not None and state is None:
            raise LeaseholdError(f"there is no job {job}", hint="`leasehold status` lists the newest ones.")
        if not follow or (state and state["status"] in ENDED):
            async for row in _all(client, job, thread):  # whatever other transactions are still open
                _show(row, shown, as_json, whole=True)
            return
        while rows := await client.message_changes(shown.cursor, job, thread):
            shown.cursor = rows[-1]["cursor"]
            for row in sorted(rows, key=lambda row: row["id"]):
                _show(row, shown, as_json, whole=row["status"] != "streaming")
        await asyncio.sleep(PAUSE)


async def _all(client: Client, job: int | None, thread: str | None) -> AsyncIterator[dict[str, Any]]:
    after = 0
    while rows := await client.messages(job, thread, after):
        for row in rows:
            after = row["id"]
            yield row


def _show(row: dict[str, Any], shown: Shown, as_json: bool, *, whole: bool) -> None:
    """What of it was not shown yet; of one that streams, the lines that have ended."""
    if as_json:
        if shown.rows.get(row["id"]) != (row["content"], row["status"]):
            print_json(row)
        shown.rows[row["id"]] = row["content"], row["status"]
        return
    text, before = row["content"], shown.texts.get(row["id"], "")
    known = before if text.startswith(before) else ""
    fresh = text[len(known) :] if whole else text[len(known) : text.rfind("\n") + 1]
    if not fresh:
        return
    shown.texts[row["id"]] = known + fresh
    if not known or shown.last != row["id"]:
        _head(row)
    shown.last = row["id"]
    out.print(Text("\n".join(map(printable, fresh.removesuffix("\n").split("\n")))))


def _head(row: dict[str, Any]) -> None:
    when = time.strftime("%H:%M:%S", row["created_at"].astimezone().timetuple())
    note = f" {row['status']}" if row["status"] in ("queued", "failed") else ""
    out.print(Text.assemble((f"{when} ", "dim"), (row["role"], STYLES[row["role"]]), f" job {row['job_id']}{note}"))
