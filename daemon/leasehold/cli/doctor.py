"""doctor: is everything in place, and with which settings? Reads, changes nothing, shows no secret."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from leasehold import __version__
from leasehold.cli.console import out, print_json, table
from leasehold.cli.jobs import Dsn, Json
from leasehold.cli.torture import Containment, run_torture
from leasehold.db.client import open_client
from leasehold.db.schema import require_schema
from leasehold.errors import LeaseholdError
from leasehold.processes.launch import try_keeper
from leasehold.processes.link import ask_keeper, wrong_protocol
from leasehold.settings import Settings, load_settings

Check = tuple[str, bool, str]
Reach = Mapping[str, Any]


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(doctor)


def doctor(
    torture: Annotated[
        bool,
        typer.Option("--torture", help="Run misbehaving agents on a private stack instead: what does this host catch?"),
    ] = False,
    containment: Annotated[
        Containment, typer.Option(help="With --torture: on which rung; auto is the best that this host gives.")
    ] = Containment.AUTO,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Check the installation and print the effective settings without secrets; exit code 1 when something is wrong."""
    if torture:
        run_torture(database_url, containment, as_json)
        return
    settings = load_settings(**({"database_url": database_url} if database_url else {}))
    checks, reach = asyncio.run(_checks(settings))
    if as_json:
        print_json({
            "version": __version__, "settings": settings.redacted(),
            "checks": [{"check": name, "ok": ok, "detail": detail} for name, ok, detail in checks],
            "containment": reach,
        })  # fmt: skip
    else:
        out.print(table(("setting", "value"), settings.redacted().items()), "")
        out.print(
            table(("check", "", "detail"), [(name, "ok" if ok else "WRONG", detail) for name, ok, detail in checks])
        )
        _print_reach(reach)
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


async def _checks(settings: Settings) -> tuple[list[Check], Reach]:
    keeper, reach = await _keeper(settings)
    return [await _database(settings), await _schema(settings), keeper], reach


async def _database(settings: Settings) -> Check:
    try:
        async with open_client(settings.database_url) as client:
            seen: dict[str, Any] = await client.health()
    except LeaseholdError as error:
        return "database", False, f"{error} {error.hint}".strip()
    return "database", True, ", ".join(f"{name} {value}" for name, value in seen.items())


async def _schema(settings: Settings) -> Check:
    try:
        await require_schema(settings.database_url)
    except LeaseholdError as error:
        return "schema", False, f"{error} {error.hint}".strip()
    except OSError as error:
        return "schema", False, str(error)
    return "schema", True, "is the one this program needs"


async def _keeper(settings: Settings) -> tuple[Check, Reach]:
    """Is one there, and what does it contain? Where the daemon starts it itself: what would it contain?"""
    try:
        said = await ask_keeper(settings.socket)
    except LeaseholdError as error:
        if settings.under_systemd:
            return ("keeper", False, f"none is running: `systemctl status leasehold-keeper` ({error})"), {}
        return await _keeper_to_be(settings)
    wrong = wrong_protocol(said)
    older = "" if "feed" in said.get("operations", ()) else ", of an earlier release: it cannot speak to agents"
    detail = f"version {said['version']}, {wrong or _rung(said['containment']) + older}"
    return ("keeper", wrong is None, detail), said["containment"]


async def _keeper_to_be(settings: Settings) -> tuple[Check, Reach]:
    try:
        said = await try_keeper(settings.state_dir)
    except LeaseholdError as error:
        return ("keeper", False, str(error)), {}
    detail = f"none is running, the daemon starts one itself: {_rung(said['containment'])}"
    return ("keeper", True, detail), said["containment"]


def _rung(reach: Reach) -> str:
    return f"containment {reach['rung']}, limits not enforced: {', '.join(reach['missing']) or 'none'}"


def _print_reach(reach: Reach) -> None:
    """One line for each thing that may outlive its run here: nobody should learn it from an incident."""
    if reach.get("cannot_catch"):
        out.print("", f"With containment {reach['rung']} the keeper cannot catch", sep="\n")
        out.print("\n".join(f"  - {sentence}" for sentence in reach["cannot_catch"]), markup=False)
