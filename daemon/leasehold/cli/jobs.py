"""enqueue, cancel, retry, status: the SQL functions of the same names, for people at a terminal."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from leasehold.cli.console import ask, out, print_json, table
from leasehold.errors import LeaseholdError

Dsn = Annotated[str | None, typer.Option("--database-url", help="Where Postgres is; else LEASEHOLD_DATABASE_URL.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
JobId = Annotated[int, typer.Argument(metavar="JOB", min=1, help="The job's id.")]


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    for command in (enqueue, cancel, retry, status):
        app.command()(command)


def enqueue(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    prompt: Annotated[str, typer.Argument(help="What to do.")],
    queue: Annotated[str | None, typer.Option(help="Which line to stand in.")] = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    title: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 1000, higher first.")] = None,
    run_at: Annotated[datetime | None, typer.Option(help="Not before this time.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often it may fail.")] = None,
    concurrency_key: Annotated[str | None, typer.Option(help="One live job per key.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and request: the same job.")] = None,
    session_key: Annotated[str | None, typer.Option(help="The conversation it goes on with.")] = None,
    session: Annotated[str | None, typer.Option(help="The same by the backend's own id.")] = None,
    new_session: Annotated[bool | None, typer.Option("--new-session", help="Begin that conversation anew.")] = None,
    payload: Annotated[str | None, typer.Option(help="A JSON object for the agent.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Insert one job."""
    fields: dict[str, Any] = {
        "agent": agent, "prompt": prompt, "queue": queue, "tenant": tenant, "title": title, "priority": priority,
        "run_at": run_at.astimezone() if run_at else None, "max_attempts": max_attempts,
        "concurrency_key": concurrency_key, "idempotency_key": idempotency_key, "payload": _json(payload),
        "session_key": session_key, "session": session, "new_session": new_session,
    }  # fmt: skip
    given = {name: value for name, value in fields.items() if value is not None}
    answer = ask(database_url, lambda client: client.enqueue(given))
    if as_json:
        print_json(answer)
    else:
        out.print(f"job {answer['job_id']} {answer['disposition']}")


def cancel(
    job: JobId,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """End a job: a queued one at once, a running one when its processes are gone."""
    answer = ask(database_url, lambda client: client.cancel(job, reason))
    _say(job, answer, as_json)


def retry(job: JobId, database_url: Dsn = None, as_json: Json = False) -> None:
    """Give an ended job one more attempt."""
    _say(job, ask(database_url, lambda client: client.retry(job)), as_json)


def status(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", min=1, help="One job; else the newest ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many jobs.")] = 20,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show queues and newest jobs, or one job with its runs."""
    if job is not None:
        _one(job, database_url, as_json)
        return
    stats = ask(database_url, lambda client: client.stats())
    jobs = ask(database_url, lambda client: client.jobs(limit))
    if as_json:
        print_json({"queues": stats, "jobs": jobs})
        return
    if stats:
        out.print(table(list(stats[0]), [list(row.values()) for row in stats]), "")
    columns = ("id", "agent", "status", "reason", "attempts", "created_at", "finished_at", "title")
    out.print(table(columns, [[row.get(name) for name in columns] for row in jobs]))


def _one(job: int, database_url: str | None, as_json: bool) -> None:
    found = ask(database_url, lambda client: client.job(job))
    if found is None:
        raise LeaseholdError(f"there is no job {job}", hint="`leasehold status` lists the newest ones.")
    runs = ask(database_url, lambda client: client.runs(job))
    if as_json:
        print_json({"job": found, "runs": runs})
        return
    out.print(table(("field", "value"), [(name, value) for name, value in found.items() if value is not None]), "")
    columns = (
        "attempt",
        "id",
        "status",
        "outcome",
        "reason",
        "exit_code",
        "signal",
        "started_at",
        "ended_at",
        "message",
    )
    out.print(table(columns, [[run[name] for name in columns] for run in runs]))


def _say(job: int, answer: str, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": job, "answer": answer})
    else:
        out.print(f"job {job} {answer}")


def _json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"payload is not JSON: {error}") from error
