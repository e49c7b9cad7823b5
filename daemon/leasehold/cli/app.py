"""The command line: one function each, no logic. If it fails, one command fails, with a message, a hint and an exit code."""

import sys

import typer

from leasehold import __version__
from leasehold.cli import (
    agents,
    conversation,
    daemon,
    doctor,
    jobs,
    messages,
    pause,
    retention,
    schedules,
    tail,
    threads,
    usage,
    why,
)
from leasehold.cli.console import complain
from leasehold.errors import BadSettings, KeeperSuperseded, LeaseholdError, SchemaNewer, SchemaOutdated

FAILED, USAGE, NEWER, SUPERSEDED, CONFIGURATION = 1, 2, 57, 69, 78
"""Exit codes: the command failed; wrong usage; the schema is newer or breaking; another daemon took over; configuration."""

app = typer.Typer(
    name="leasehold",
    help="Run AI agents as leased subprocesses, with PostgreSQL as the only API.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 57 the schema is newer than this program, 69 superseded by another daemon, 78 configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for room in (
    daemon,
    jobs,
    conversation,
    tail,
    messages,
    why,
    pause,
    threads,
    schedules,
    usage,
    retention,
    agents,
    doctor,
):
    room.register(app)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """The `leasehold` command."""
    try:
        app()  # ends the process itself: 0, 2 for wrong usage, 130 for an interrupt
    except LeaseholdError as error:
        complain(error)
        sys.exit(_code(error))
    except BaseExceptionGroup as group:
        sys.exit(_explain(group))


def _explain(group: BaseExceptionGroup[BaseException]) -> int:
    """One accident ends a task group and cancels the rest: name that one."""
    expected, rest = group.split(LeaseholdError)
    if expected is None or rest is not None:
        raise group
    first: BaseException = expected
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, LeaseholdError)
    complain(first)
    return _code(first)


def _code(error: LeaseholdError) -> int:
    if isinstance(error, SchemaNewer):
        return NEWER
    if isinstance(error, KeeperSuperseded):
        return SUPERSEDED
    return CONFIGURATION if isinstance(error, BadSettings | SchemaOutdated) else FAILED
