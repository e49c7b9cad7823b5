"""steer, prompt, interrupt, turns, interactions, answer: a word with an agent at work. If it fails, one command fails."""

import json
from typing import Annotated, Any

import typer
from rich.text import Text

from leasehold.cli.console import ask, out, print_json, table
from leasehold.cli.jobs import Dsn, JobId, Json

Key = Annotated[str | None, typer.Option("--idempotency-key", help="The same key and words: the same turn.")]
Words = Annotated[str, typer.Argument(help="What to say.")]
TURNS = ("id", "seq", "kind", "state", "outcome", "why", "text", "follow_up_job")
ASKS = ("id", "job_id", "kind", "status", "tool", "asks", "choices", "asked_at", "expires_at")


def register(app: typer.Typer) -> None:
    """Hang this room's commands on the tree."""
    for command in (steer, prompt, interrupt, turns, interactions, answer):
        app.command()(command)


def steer(
    job: JobId, text: Words, idempotency_key: Key = None, database_url: Dsn = None, as_json: Json = False
) -> None:
    """Say something to an agent in the middle of its work."""
    _say("steer", job, text, idempotency_key, database_url, as_json)


def prompt(
    job: JobId, text: Words, idempotency_key: Key = None, database_url: Dsn = None, as_json: Json = False
) -> None:
    """Ask an agent for more, behind what it does now."""
    _say("prompt", job, text, idempotency_key, database_url, as_json)


def interrupt(
    job: JobId,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Stop what an agent does now; its run lives on."""
    _say("interrupt", job, reason, None, database_url, as_json)


def turns(
    job: JobId,
    after: Annotated[int, typer.Option(min=0, help="The seq behind which to begin.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 100,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show what was said to the agent of a job, and what became of it."""
    rows = ask(database_url, lambda client: client.turns(job, after, limit))
    if as_json:
        print_json(rows)
    else:
        out.print(table(TURNS, [[row[name] for name in TURNS] for row in rows]))


def interactions(
    job: Annotated[int | None, typer.Option(min=1, help="Of one job only.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Show what agents ask of humans, the oldest first."""
    rows = ask(database_url, lambda client: client.interactions(job, every, limit))
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "asks": row["prompt"], "choices": _choices(row)} for row in rows]
    out.print(table(ASKS, [[row[name] for name in ASKS] for row in shown]))


def answer(
    interaction: Annotated[int, typer.Argument(min=1, help="Its id; `leasehold interactions` shows it.")],
    words: Annotated[
        str | None, typer.Argument(metavar="[ANSWER]", help="An option, allow, deny, or free words.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="More words for the agent.")] = None,
    answers: Annotated[str | None, typer.Option(help="A JSON object: an answer for each question's id.")] = None,
    database_url: Dsn = None,
    as_json: Json = False,
) -> None:
    """Answer a question or permission request of an agent."""
    given = _object(answers)
    said = ask(database_url, lambda client: client.answer(interaction, words, message, given))
    if as_json:
        print_json({"interaction": interaction, "answer": said})
    else:
        out.print(f"interaction {interaction} {said}")


def _say(kind: str, job: int, text: str | None, key: str | None, database_url: str | None, as_json: bool) -> None:
    turn = ask(database_url, lambda client: client.say(kind, job, text, key))
    if as_json:
        print_json(turn)
    else:
        out.print(Text(f"turn {turn['id']} {turn['state']}" + (f": {turn['why']}" if turn["why"] else "")))


def _choices(row: dict[str, Any]) -> str:
    if row["kind"] == "permission":
        return ", ".join(str(option["id"]) for option in row["options"]) or "allow, deny"
    return "; ".join(
        f"{asked['id']}: {', '.join(str(option.get('label')) for option in asked.get('options') or ()) or 'any words'}"
        for asked in row["questions"]
    )


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter("answers must be a JSON object", param_hint="--answers")
    return value
