"""schedules: what comes when, what came last, and which schedules have an error. If it fails, one command fails."""

import typer

from leasehold.cli.console import ask, out, print_json, table
from leasehold.cli.jobs import Dsn, Json


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(schedules)


def schedules(database_url: Dsn = None, as_json: Json = False) -> None:
    """List the schedules: what comes when, the last tick and its job, the error if there is one. INSERT and UPDATE change them."""
    rows = ask(database_url, lambda client: client.schedules())
    if as_json:
        print_json({"schedules": rows})
        return
    columns = ("id", "name", "agent", "comes", "next", "last", "job", "error")
    out.print(table(columns, [[row["id"], row["name"], row["agent"], _comes(row), *_times(row)] for row in rows]))


def _comes(row: dict[str, object]) -> str:
    if row["cron"] is None:
        return f"every {row['every']}"
    return f"{row['cron']} {row['timezone']}"


def _times(row: dict[str, object]) -> tuple[object, ...]:
    upcoming = row["next_at"] or ("off" if not row["enabled"] else "unknown")
    return upcoming, row["last_at"], row["last_job"], row["error"]
