"""migrate, daemon, keeper, demo: what an operator starts."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from leasehold import log
from leasehold.cli.console import out, print_json
from leasehold.cli.demo import run_demo
from leasehold.cli.jobs import Dsn, Json
from leasehold.db.client import told
from leasehold.db.embedded import open_postgres
from leasehold.db.schema import bring_up_to_date
from leasehold.main import serve
from leasehold.processes.launch import keeper_command
from leasehold.settings import Settings, load_settings

StateDir = Annotated[Path | None, typer.Option("--state-dir", help="Locks, run directories, the embedded server.")]


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    app.command()(migrate)
    app.command()(daemon)
    app.command()(keeper)
    app.command()(demo)


def migrate(database_url: Dsn = None, as_json: Json = False) -> None:
    """Bring the database schema up to date. Safe to run again, and from many places at once."""
    settings = load_settings(**({"database_url": database_url} if database_url else {}))

    async def bring() -> list[str]:
        with told():
            return await bring_up_to_date(settings.database_url)

    applied = asyncio.run(bring())
    if as_json:
        print_json({"applied": applied})
    else:
        out.print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")


def daemon(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="With a PostgreSQL of our own in the state directory.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Claim jobs and run them until told to stop. First TERM: leave by stop_mode; second TERM: stop the agents too."""
    given = {"state_dir": state_dir.absolute()} if state_dir else {}
    if not embedded:
        settings = load_settings(**given)
        log.configure(settings.log_format, settings.log_level)
        anyio.run(serve, settings)
        return
    settings = load_settings(**given, database_url="postgresql://embedded")
    log.configure(settings.log_format, settings.log_level)
    anyio.run(_serve_embedded, settings)


async def _serve_embedded(settings: Settings) -> None:
    async with open_postgres(settings.state_dir / "postgres", durable=True) as dsn:
        await bring_up_to_date(dsn)
        out.print(f"psql '{dsn}'", style="bold")
        await serve(settings.model_copy(update={"database_url": dsn}))


def keeper(
    state_dir: StateDir = None,
    socket: Annotated[Path | None, typer.Option(help="Where to listen; by default in the state directory.")] = None,
    allow_group: Annotated[list[str] | None, typer.Option(help="Members of this group may connect too.")] = None,
) -> None:
    """Own the agents' processes, in the foreground. Outlives daemons; kills what has no lease."""
    settings = load_settings(
        database_url="postgresql://not-used", **({"state_dir": state_dir.absolute()} if state_dir else {})
    )
    command = [*keeper_command(settings.state_dir), "--socket", str(socket or settings.socket)]
    for name in allow_group or ():
        command += ["--allow-group", name]
    # a process of its own: the keeper must stay small, and this one has imported the whole daemon
    os.execv(sys.executable, command)  # noqa: S606


def demo(
    state_dir: StateDir = None,
    checkout: Annotated[Path | None, typer.Option(help="The directory that the first agent reports on.")] = None,
) -> None:
    """Show the whole path in under a minute: a server, a daemon, jobs by plain SQL, their log, their outcomes."""
    code = anyio.run(run_demo, (state_dir or Path(".state") / "demo").absolute(), (checkout or Path.cwd()).absolute())
    raise typer.Exit(code)
