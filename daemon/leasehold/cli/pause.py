"""pause, resume: what must not start now, by agent, queue, tenant, host or all. If it fails, one command fails."""

from enum import StrEnum
from typing import Annotated

import typer

from leasehold.cli.console import ask, out, print_json
from leasehold.cli.jobs import Dsn, Json


class Scope(StrEnum):
    """What may be paused."""

    agent = "agent"
    queue = "queue"
    tenant = "tenant"
    host = "host"
    all = "all"


Which = Annotated[Scope, typer.Argument(help="What to pause.")]
Name = Annotated[str | None, typer.Argument(help="Its name; none for all.")]


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    for command in (pause, resume):
        app.command()(command)


def pause(
    scope: Which,
    name: Name = None,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever wonders.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Start nothing new of it until it is resumed; what runs goes on."""
    which = _which(scope, name)
    ask(database_url, lambda client: client.pause(scope, which, reason))
    _say(scope, which, "paused", as_json)


def resume(scope: Which, name: Name = None, database_url: Dsn = None, as_json: Json = False) -> None:
    """Let it start again."""
    which = _which(scope, name)
    ask(database_url, lambda client: client.resume(scope, which))
    _say(scope, which, "resumed", as_json)


def _which(scope: Scope, name: str | None) -> str | None:
    if (name is None) != (scope is Scope.all):
        raise typer.BadParameter("all has no name" if scope is Scope.all else f"which {scope}? Give its name")
    return name


def _say(scope: Scope, name: str | None, answer: str, as_json: bool) -> None:
    if as_json:
        print_json({"scope": scope, "name": name, "answer": answer})
    else:
        out.print(" ".join(word for word in (scope, name, answer) if word))
