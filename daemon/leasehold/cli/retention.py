"""retention: what is kept how long, and what was removed last. If it fails, one command fails."""

from typing import Any

import typer

from leasehold.cli.console import ask, out, print_json, table
from leasehold.cli.jobs import Dsn, Json


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(retention)


def retention(database_url: Dsn = None, as_json: Json = False) -> None:
    """Show what is kept how long, what went so far, and directories that still have to go."""
    rules = ask(database_url, lambda client: client.retention())
    removals = ask(database_url, lambda client: client.removals())
    if as_json:
        print_json({"rules": rules, "removals": removals})
        return
    out.print(table(("what", "kept", "removed", "last_removed_at", "swept_at"), [_rule(rule) for rule in rules]))
    if removals:
        columns = ("host_id", "path", "attempts", "next_at", "error")
        out.print(
            "",
            "directories that still have to go:",
            table(columns, [[row[name] for name in columns] for row in removals]),
            sep="\n",
        )


def _rule(rule: dict[str, Any]) -> list[object]:
    kept = rule["keep"] or ("as long as their job" if rule["what"] == "events" else "for ever")
    return [rule["what"], kept, rule["removed"], rule["last_removed_at"], rule["swept_at"]]
