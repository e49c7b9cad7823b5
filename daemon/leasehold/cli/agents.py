"""agents: what this host can run of them, a new row for a known one, and a test of one turn. If it fails, one command fails."""

import asyncio
import time
from typing import Annotated, Any

import typer

from leasehold.agents.programs import PROGRAMS, Program
from leasehold.cli.console import ask, out, print_json, printable, table
from leasehold.cli.jobs import Dsn, Json
from leasehold.cli.programs import find, look_at
from leasehold.db.client import Client, Row
from leasehold.errors import LeaseholdError

COLUMNS = ("name", "adapter", "status", "program", "how", "version", "problem")
PROMPT = "This is a test of your setup. Say the word ok, and nothing else. Use no tool."
ENDED = frozenset({"succeeded", "failed", "blocked", "timed_out", "cancelled"})
PAUSE = 0.3

agents = typer.Typer(invoke_without_command=True, help="List agents and what this host has of them; add one; test one.")
Known = Annotated[str, typer.Argument(metavar="PROGRAM", help=f"One of: {', '.join(PROGRAMS)}.")]


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    app.add_typer(agents, name="agents")


@agents.callback()
def list_(context: typer.Context, database_url: Dsn = None, as_json: Json = False) -> None:
    """List agents: which programs they mean on this host, which versions, and what is in the way."""
    if context.invoked_subcommand is not None:
        return
    rows = ask(database_url, lambda client: client.agents())
    shown = [
        {
            **{name: row[name] for name in ("name", "adapter", "status")},
            "program": found.path or row["command"][0], "how": found.how, "version": found.version, "problem": found.problem,
        }
        for row, found in zip(rows, look_at(rows), strict=True)
    ]  # fmt: skip
    if as_json:
        print_json(shown)
    else:
        out.print(table(COLUMNS, [[row[name] for name in COLUMNS] for row in shown]))


@agents.command()
def add(
    program: Known,
    name: Annotated[str | None, typer.Option(help="What to call the agent; else as the program.")] = None,
    path: Annotated[
        str | None, typer.Option("--program", help="Where it is on the workers' hosts; else as found here.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="The directory it works in; else a fresh one for each run.")
    ] = None,
    credential: Annotated[
        str | None, typer.Option(help="A login's file on the workers' hosts, lent to one run at a time.")
    ] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Write a row for a known agent, and print the SQL that did."""
    known = PROGRAMS.get(program)
    if known is None:
        raise typer.BadParameter(f"{program!r} is none of: {', '.join(PROGRAMS)}")
    found = find(path or known.name, None, None)
    row = {
        "name": name or known.name, "adapter": known.adapter, "command": [path or found.path or known.name, *known.words],
        "env": dict(known.env), "private_config": True, "workspace": workspace, "credential": credential,
        "config_files": {} if credential else dict(known.files),
    }  # fmt: skip
    given = {column: value for column, value in row.items() if value not in (None, {})}
    statement = ask(database_url, lambda client: client.add_agent(given))
    if as_json:
        print_json({"sql": statement, "problem": found.problem})
        return
    out.print(printable(statement), markup=False)
    _advise(known, str(row["name"]), found.problem, credential)


def _advise(known: Program, name: str, problem: str | None, credential: str | None) -> None:
    """What is left to do, on stdout as well: it belongs to the answer."""
    if problem is not None:
        out.print(f"not on this host: {problem}", markup=False)
    if credential is None:
        change = f"UPDATE leasehold.agents SET env = env || '{{\"{known.key}\": \"...\"}}' WHERE name = '{name}';"  # noqa: S608 only printed
        out.print(f"if it needs a key: {change}", markup=False)
    out.print(f"try it: leasehold agents check {name}", markup=False)


@agents.command()
def check(
    name: Annotated[str, typer.Argument(help="The agent's name.")],
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to wait for its end.")] = 120,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Have it do one turn, as a job like any other, and say what happened and what to do."""
    found = ask(database_url, lambda client: _turn(client, name, timeout))
    if as_json:
        print_json(found)
    else:
        for line in found["story"]:
            out.print(printable(line), markup=False)
    if found["status"] != "succeeded":
        raise typer.Exit(1)


async def _turn(client: Client, name: str, timeout: float) -> dict[str, Any]:
    """Insert the job and follow it; what has not ended in time is cancelled."""
    fields = {"agent": name, "prompt": PROMPT, "title": "self-test", "kind": "self-test", "priority": 1000}
    job = (await client.enqueue(fields))["job_id"]
    late = time.monotonic() + timeout
    while (row := await _row(client, job))["status"] not in ENDED and time.monotonic() < late:
        await asyncio.sleep(PAUSE)
    if row["status"] in ENDED:
        return {"job_id": job, "status": row["status"], "story": await _story(client, row)}
    story = [f"It had not ended after {timeout:g} s, and was cancelled.", *await client.why(job)]
    await client.cancel(job, f"the self-test took longer than {timeout:g} s")
    return {"job_id": job, "status": row["status"], "story": story}


async def _story(client: Client, row: Row) -> list[str]:
    """How it ended, in what time, and what to do about it."""
    took = f" in {row['duration'].total_seconds():.1f} s" if row["duration"] else ""
    why = ", ".join(str(word) for word in (row["reason"], row["message"]) if word and row["status"] != "succeeded")
    advice = await client.advice(row["status"], row["reason"])
    return [
        f"job {row['id']} {row['status']}{took}" + (f": {why}" if why else ""),
        *([f"advice: {advice}"] if advice and row["status"] != "succeeded" else []),
        *([] if row["status"] == "succeeded" else [f"more: leasehold why {row['id']}"]),
    ]


async def _row(client: Client, job: int) -> Row:
    found = await client.job(job)
    if found is None:
        raise LeaseholdError(f"job {job} was deleted under the test")
    return found
