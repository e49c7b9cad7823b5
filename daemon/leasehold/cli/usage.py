"""usage: what runs used and what it cost, by whom or when; and how the budgets stand. If it fails, one command fails."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from leasehold.cli.console import ask, out, print_json, table
from leasehold.cli.jobs import Dsn, Json


class By(StrEnum):
    """The columns of `usage_totals` that one may ask for sums by."""

    agent = "agent"
    tenant = "tenant"
    account = "account"
    session = "session"
    provider = "provider"
    model = "model"
    day = "day"
    month = "month"


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(usage)


def usage(
    by: Annotated[list[By] | None, typer.Option(help="Sums by this; may be given more than once.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this day (of UTC) on.")] = None,
    budgets: Annotated[bool, typer.Option("--budgets", help="How the budgets stand, instead.")] = False,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show tokens and cost, by agent unless told otherwise. What has no price is counted as unpriced, not as free."""
    columns = [str(each) for each in by or [By.agent]]
    day = since.date() if since else None
    rows = ask(database_url, lambda client: client.budgets() if budgets else client.usage(columns, day))
    if as_json:
        print_json(rows)
    elif rows:
        out.print(table(list(rows[0]), [list(row.values()) for row in rows]))
    else:
        out.print("there are no budgets" if budgets else "nothing was used")
