"""doctor: is everything in place, and with which settings? Reads, changes nothing, shows no secret."""

import asyncio
from typing import Any

import typer

from leasehold import __version__
from leasehold.cli.console import out, print_json, table
from leasehold.cli.jobs import Dsn, Json
from leasehold.db.client import open_client
from leasehold.db.schema import require_schema
from leasehold.errors import LeaseholdError
from leasehold.processes.link import ask_keeper
from leasehold.settings import Settings, load_settings

Check = tuple[str, bool, str]


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(doctor)


def doctor(database_url: Dsn = None, as_json: Json = False) -> None:
    """Check the installation and print the effective settings without secrets; exit code 1 when something is wrong."""
    settings = load_settings(**({"database_url": database_url} if database_url else {}))
    checks = asyncio.run(_checks(settings))
    if as_json:
        print_json({
            "version": __version__, "settings": settings.redacted(),
            "checks": [{"check": name, "ok": ok, "detail": detail} for name, ok, detail in checks],
        })  # fmt: skip
    else:
        out.print(table(("setting", "value"), settings.redacted().items()), "")
        out.print(
            table(("check", "", "detail"), [(name, "ok" if ok else "WRONG", detail) for name, ok, detail in checks])
        )
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


async def _checks(settings: Settings) -> list[Check]:
    return [await _database(settings), await _schema(settings), await _keeper(settings)]


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


async def _keeper(settings: Settings) -> Check:
    """Containment: what this host gives, and what it cannot catch."""
    try:
        said = await ask_keeper(settings.socket)
    except LeaseholdError as error:
        detail = "none is running; outside systemd the daemon starts one itself"
        return "keeper", not settings.under_systemd, f"{detail} ({error})"
    rung = said["containment"]
    missing = ", ".join(rung.get("missing", [])) or "nothing"
    return "keeper", True, f"version {said['version']}, containment {rung['rung']}, not enforced: {missing}"
