"""Bring the schema up to date: numbered migrations once, functions whenever their text changed. If it fails, no daemon starts."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncpg

from leasehold.errors import SchemaChanged, SchemaNewer, SchemaOutdated

LAST = ("triggers", "grants")  # in this order, after all other functions
QUEUEING = "30s"  # behind another migrator, who has nothing of ours
GIVING_WAY = "100ms"  # behind a producer's open transaction: whoever waits for its table blocks every insert behind him
PATIENCE = 60.0  # seconds of trying again
AGAIN = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,  # another database of this cluster creates the same roles
)
LEDGER = """
create schema if not exists leasehold;
create table leasehold.migrations (
  name       text primary key,
  checksum   text not null,
  breaking   boolean not null default false,
  applied_at timestamptz not null default clock_timestamp()
);
create table leasehold.functions (
  name       text primary key,
  checksum   text not null,
  applied_at timestamptz not null default clock_timestamp()
);
"""


@dataclass(frozen=True)
class Script:
    """One SQL file. `breaking`: its first line is `-- breaking`, daemons that do not know it must leave."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Of the text, as the ledger keeps it."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def breaking(self) -> bool:
        """Must daemons that do not know it leave?"""
        return self.text.partition("\n")[0].strip() == "-- breaking"


def sql_home() -> Path:
    """Where the SQL files are: inside an installed package, else in the checkout."""
    packaged = Path(__file__).parents[1] / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"


async def migrate(connection: asyncpg.Connection, home: Path | None = None) -> list[str]:
    """Apply what is missing, all or nothing, one migrator at a time. Returns the names of what was applied. (G1 to G7, X32)

    Raises SchemaNewer when the database knows a migration that we do not, SchemaChanged when one was edited after it was
    applied. Waits up to a minute, in short turns, for transactions that hold our tables.
    """
    migrations, functions = _scripts(home or sql_home())
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await _migrate_once(connection, migrations, functions)
        except AGAIN:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(random.uniform(0.05, 0.5))


async def check_schema(connection: asyncpg.Connection, home: Path | None = None) -> str | None:
    """Refuse a schema that this code cannot work with, without touching it. Returns a warning worth logging, or None.

    Raises SchemaOutdated when something is missing, SchemaChanged when an applied migration was edited, SchemaNewer when
    a newer migration says that it breaks older daemons.
    """
    migrations, functions = _scripts(home or sql_home())
    if not await _has_ledger(connection):
        raise SchemaOutdated("the database has no Leasehold schema")
    applied = await _applied(connection)
    _refuse_edited(migrations, applied)
    if missing := [script.name for script in migrations if script.name not in applied]:
        raise SchemaOutdated(f"the database lacks {', '.join(missing)}")
    newer = sorted(set(applied) - {script.name for script in migrations})
    breaking = [name for name in newer if applied[name][1]]
    if breaking:
        raise SchemaNewer(f"the database has {', '.join(breaking)}, which this program does not know")
    if newer:
        return f"the database has {', '.join(newer)}, which this program does not know; it says that this is no harm"
    if stale := await _changed(connection, functions):
        return f"the functions in {', '.join(script.name for script in stale)} differ from this program's: run `leasehold migrate`"
    return None


async def _migrate_once(connection: asyncpg.Connection, migrations: list[Script], functions: list[Script]) -> list[str]:
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("set local application_name = 'leasehold'")
        await connection.execute(f"set local lock_timeout = '{QUEUEING}'")
        await connection.execute("select pg_advisory_xact_lock(hashtextextended('leasehold.migrate', 0))")
        await connection.execute(f"set local lock_timeout = '{GIVING_WAY}'")
        if not await _has_ledger(connection):
            await connection.execute(LEDGER)
        applied = await _applied(connection)  # read after the lock, in a statement of its own
        _refuse_edited(migrations, applied)
        if newer := sorted(set(applied) - {script.name for script in migrations}):
            raise SchemaNewer(f"the database has {', '.join(newer)}, which this program does not know")
        done = [await _apply(connection, script) for script in migrations if script.name not in applied]
        stale = await _changed(connection, functions)
        if done or stale:  # grants close what is new, so they come along with anything
            stale += [script for script in functions if script.name == "functions/grants" and script not in stale]
        return done + [await _reapply(connection, script) for script in stale]


async def _apply(connection: asyncpg.Connection, script: Script) -> str:
    await connection.execute(script.text)
    await connection.execute(
        "insert into leasehold.migrations (name, checksum, breaking) values ($1, $2, $3)",
        script.name,
        script.checksum,
        script.breaking,
    )
    return script.name


async def _reapply(connection: asyncpg.Connection, script: Script) -> str:
    await connection.execute(script.text)
    await connection.execute(
        "insert into leasehold.functions (name, checksum) values ($1, $2)"
        " on conflict (name) do update set checksum = excluded.checksum, applied_at = clock_timestamp()",
        script.name,
        script.checksum,
    )
    return script.name


async def _has_ledger(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select to_regclass('leasehold.migrations') is not null"))


async def _applied(connection: asyncpg.Connection) -> dict[str, tuple[str, bool]]:
    rows = await connection.fetch("select name, checksum, breaking from leasehold.migrations")
    return {row["name"]: (row["checksum"], row["breaking"]) for row in rows}


async def _changed(connection: asyncpg.Connection, functions: Iterable[Script]) -> list[Script]:
    rows = await connection.fetch("select name, checksum from leasehold.functions")
    known = {row["name"]: row["checksum"] for row in rows}
    return [script for script in functions if known.get(script.name) != script.checksum]


def _refuse_edited(migrations: Iterable[Script], applied: Mapping[str, tuple[str, bool]]) -> None:
    for script in migrations:
        if script.name in applied and applied[script.name][0] != script.checksum:
            raise SchemaChanged(f"{script.name} was edited after it had been applied")


def _scripts(home: Path) -> tuple[list[Script], list[Script]]:
    def read(folder: str) -> list[Script]:
        return [Script(f"{folder}/{path.stem}", path.read_text()) for path in sorted((home / folder).glob("*.sql"))]

    functions = read("functions")
    functions.sort(key=lambda script: LAST.index(script.name[10:]) if script.name[10:] in LAST else -1)
    return read("migrations"), functions
