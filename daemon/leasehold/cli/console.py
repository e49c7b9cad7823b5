"""How the command line speaks: results on stdout, everything else on stderr. Plain when it is not a terminal."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leasehold.db.client import Client, open_client
from leasehold.errors import LeaseholdError
from leasehold.settings import load_settings

T = TypeVar("T")

WIDE = 10_000
"""Columns of what is no terminal: whoever reads a pipe gets whole words."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)

COLOURS = {
    "succeeded": "green", "running": "cyan", "queued": "blue", "deferred": "blue", "waiting": "magenta",
    "failed": "red", "timed_out": "red", "blocked": "yellow", "cancelled": "yellow",
}  # fmt: skip


def ask(dsn: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, put one question, disconnect."""

    async def answer() -> T:
        settings = load_settings(**({"database_url": dsn} if dsn else {}))
        async with open_client(settings.database_url) as client:
            return await question(client)

    return asyncio.run(answer())


def complain(error: LeaseholdError) -> None:
    """An error as its reader needs it: what, and what to do."""
    code = getattr(error, "sqlstate", "")
    err.print(Text.assemble(("error: ", "bold red"), str(error), (f" [{code}]" if code else "", "dim")))
    if error.hint:
        err.print(Text.assemble(("hint: ", "bold"), error.hint))


def print_json(value: object) -> None:
    """One JSON document on one line."""
    print(json.dumps(value, default=plain, ensure_ascii=False))


def plain(value: Any) -> Any:
    """What JSON has no word for."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return amount(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A small table; a status is coloured, nothing is None."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in map(short, row)))
    return made


def short(value: object) -> str:
    """A cell: durations in seconds, times to the second, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, datetime):
        return value.astimezone().strftime("%m-%d %H:%M:%S")
    if isinstance(value, Decimal):
        return amount(value)
    return printable(str(value))


def amount(value: Decimal) -> str:
    """Every digit of it, none for show."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def printable(text: str) -> str:
    """Other people's words on one line: they must not drive the reader's terminal."""
    return "".join(char if char.isprintable() or char == "\t" else " " if char == "\n" else "\ufffd" for char in text)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
