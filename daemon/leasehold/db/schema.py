"""Is the schema the one this program needs? Asked at start and now and then; if not, the daemon leaves."""

import structlog
from anyio import sleep

from leasehold.db.away import AWAY, Refusal, Weather, words
from leasehold.db.client import told
from leasehold.db.connect import connect
from leasehold.db.migrate import check_schema, migrate

log = structlog.get_logger()


async def until_schema(dsn: str) -> None:
    """At start: wait for a database that is away; one that refuses us, or has the wrong schema, ends the daemon."""
    weather = Weather("start")
    while True:
        try:
            with weather.watched():
                return await require_schema(dsn)
        except AWAY:
            await sleep(1.0)
        except Refusal:
            with told():
                raise


async def require_schema(dsn: str) -> None:
    """Raises SchemaOutdated, SchemaChanged, or SchemaNewer when a newer migration breaks us."""
    connection = await connect(dsn, "leasehold schema")
    try:
        if warning := await check_schema(connection):
            log.warning("schema_newer_tolerated", detail=warning)
    finally:
        connection.terminate()


async def still_our_schema(dsn: str) -> None:
    """Now and then: a breaking migration ends us; a database that will not talk to us just now does not."""
    try:
        await require_schema(dsn)
    except Refusal as error:
        raise ConnectionError(words(error)) from error


async def bring_up_to_date(dsn: str) -> list[str]:
    """Run the migrations; names of what was applied."""
    connection = await connect(dsn, "leasehold migrate")
    try:
        return await migrate(connection)
    finally:
        connection.terminate()
