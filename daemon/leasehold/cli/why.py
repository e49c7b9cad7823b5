"""why: the story of one job in plain sentences. If it fails, one command fails."""

import typer
from rich.text import Text

from leasehold.cli.console import ask, out, print_json
from leasehold.cli.jobs import Dsn, JobId, Json


def register(app: typer.Typer) -> None:
    """Hang this room's command on the tree."""
    app.command()(why)


def why(job: JobId, database_url: Dsn = None, as_json: Json = False) -> None:
    """Tell the story of a job: what it waits for, each attempt and how it ended, its last words, what happens next."""
    story = ask(database_url, lambda client: client.why(job))
    if as_json:
        print_json({"job_id": job, "story": story})
        return
    for line in story:
        out.print(Text(line, style="dim" if line.startswith("  ") else ""))
