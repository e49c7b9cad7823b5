"""threads: the conversations that jobs belong to, and what goes on in one. If it fails, one command fails."""

from typing import Annotated

import typer
from rich.text import Text

from leasehold.cli.console import ask, out, print_json, table
from leasehold.cli.jobs import Dsn, Json
from leasehold.errors import LeaseholdError

Tenant = Annotated[str | None, typer.Option(help="On whose behalf.")]
COLUMNS = ("thread", "status", "unread", "last_activity_at", "version", "title")
JOBS = ("id", "agent", "status", "reason", "attempts", "created_at", "finished_at", "title")

threads = typer.Typer(no_args_is_help=True, help="List threads, or show one with its summary and jobs.")


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    app.add_typer(threads, name="threads")


@threads.command("list")
def list_(
    state: Annotated[str, typer.Argument(help="open, active, unread, ended, all, or a status.")] = "all",
    reader: Annotated[str | None, typer.Option(help="Who reads: what is unread depends on it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many threads.")] = 20,
    after: Annotated[str | None, typer.Option(help="The cursor that the page before ended with.")] = None,
    tenant: Tenant = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show threads: active ones first, then unread ones, then the rest."""
    rows = ask(database_url, lambda client: client.threads(state, reader, limit, after, tenant))
    cursor = rows[-1]["cursor"] if rows else after
    if as_json:
        print_json({"threads": rows, "cursor": cursor})
        return
    shown = [{**row, "unread": "unread" if row["unread"] else None} for row in rows]
    out.print(table(COLUMNS, [[row[name] for name in COLUMNS] for row in shown]))
    if len(rows) == limit:
        out.print(f"more: --after {cursor}")


@threads.command()
def show(
    thread: Annotated[str, typer.Argument(help="The thread's name.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many of its jobs.")] = 20,
    tenant: Tenant = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show one thread: its row, what goes on in it, its newest jobs."""
    found = ask(database_url, lambda client: client.thread(thread, tenant))
    if found is None:
        raise LeaseholdError(f"there is no thread '{thread}'", hint="`leasehold threads list` shows them.")
    jobs = ask(database_url, lambda client: client.thread_jobs(thread, limit, tenant))
    if as_json:
        print_json({**found, "jobs": jobs})
        return
    active = found.pop("active_summary")
    out.print(table(("field", "value"), [(name, value) for name, value in found.items() if value is not None]), "")
    out.print(Text(str(active)))
    out.print(table(JOBS, [[row[name] for name in JOBS] for row in jobs]))
