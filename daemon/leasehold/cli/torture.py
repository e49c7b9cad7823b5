"""doctor --torture: the table of what misbehaved and what caught it. If it fails, one command fails."""

from enum import StrEnum

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leasehold.cli.console import err, out, print_json
from leasehold.torture.report import NOT_CAUGHT, NOT_CLAIMED, OK, Finding, Report
from leasehold.torture.run import torture

WIDTH = 180
"""Columns of the table when nobody looks at it."""
STORIES = 3
"""Stories to tell of what was not caught: when the host itself is wrong, all are the same."""
STYLES = {OK: "green", NOT_CAUGHT: "bold red", NOT_CLAIMED: "yellow"}


class Containment(StrEnum):
    """The rungs of a keeper."""

    AUTO = "auto"
    CGROUP = "cgroup"
    SUBREAPER = "subreaper"


def run_torture(database_url: str | None, containment: Containment, as_json: bool) -> None:
    """Run it and show it; exit code 1 when something was not caught that should have been."""
    where = "a temporary database on the server given" if database_url else "a PostgreSQL"
    err.print(
        f"Torture: {where}, a keeper and a daemon of its own, in a temporary directory; yours are not touched.",
        style="dim",
    )
    report = anyio.run(torture, database_url, containment)
    if as_json:
        print_json(report.plain())
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    shown = Table("tried", "expected", "caught by", "seconds", "", box=None, pad_edge=False, header_style="bold")
    shown.columns[3].justify = "right"
    for row in report.findings:
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        shown.add_row(
            row.tried, row.expected, row.caught_by, seconds, Text(row.verdict, style=STYLES.get(row.verdict, "dim"))
        )
    Console(highlight=False, width=None if out.is_terminal else WIDTH).print(shown)
    _show_stories([row for row in report.findings if row.story])
    for process in report.left_behind:
        out.print(Text(f"left behind, and killed now: {process}", style="bold red"))
    for process in report.escaped:
        out.print(Text(f"escaped, as it may here, and killed now: {process}", style="yellow"))
    missing = ", ".join(report.containment.get("missing", ())) or "nothing"
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items())
    out.print(
        f"\n{counts}. Containment here: {report.containment['rung']}, not enforced: {missing}. {report.seconds} s.\n"
        "Seconds: from when it was cancelled, its leader went, or else it started, until nothing of it was left.",
        style="dim",
    )


def _show_stories(rows: list[Finding]) -> None:
    for row in rows[:STORIES]:
        out.print("", Text(f"NOT CAUGHT: {row.tried}", style="bold red"), *(Text(line) for line in row.story), sep="\n")
    if len(rows) > STORIES:
        out.print(f"\n{len(rows) - STORIES} more were not caught; --json has their stories.", style="bold red")
