"""How connections to Postgres are made: bounded, labelled, without a statement we did not ask for."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from anyio import fail_after

from leasehold.errors import InstanceTaken

PATIENCE = 5.0
"""Seconds to wait for a new connection, and for the lock of an instance whose last life has just died."""
END_HOLDER = """
select pg_terminate_backend(l.pid)
  from pg_locks l
 where l.pid = $1
   and l.locktype = 'advisory'
   and l.granted
   and (l.classid::int8 << 32 | l.objid::int8) = hashtextextended($2, 0)"""
KEEPALIVES = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server gives up a client that is gone after 30 seconds, not after hours: what it held, locks too, is free then."""
ANSWER = 20.0
"""Seconds that a statement may take: on a line that carries nothing any more, nobody else would ever say so."""


class Connection(asyncpg.Connection):
    """A connection whose session state is its own: a released one is not reset, so it keeps its session lock."""

    def get_reset_query(self) -> str:
        """Nothing to reset: we set nothing per call, and it would be one more round trip each time."""
        return ""


@asynccontextmanager
async def connect_pool(
    dsn: str, name: str, size: int, own_lock: str | None, answer: float
) -> AsyncIterator[asyncpg.Pool]:
    """A pool that keeps one connection when idle; every statement has `answer` seconds."""
    lock = OwnLock(own_lock) if own_lock is not None else None

    async def prepare(connection: asyncpg.Connection) -> None:
        await speak_json(connection)
        if lock is not None:
            await lock.take(connection)

    async with asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        max_inactive_connection_lifetime=60,
        timeout=PATIENCE,
        command_timeout=answer,
        connection_class=Connection,
        init=prepare,
        server_settings={"application_name": name, "lock_timeout": "5s", "jit": "off", **KEEPALIVES},
    ) as pool:
        yield pool


async def connect(dsn: str, name: str) -> asyncpg.Connection:
    """One plain connection."""
    return await asyncpg.connect(dsn, timeout=PATIENCE, server_settings={"application_name": name})


async def speak_json(connection: asyncpg.Connection) -> None:
    """Python values in, Python values out, for jsonb columns and arguments."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_encode, decoder=json.loads)


def _encode(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


class OwnLock:
    """A session lock that goes from one connection to the next. A backend of ours that a dead line left behind is ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._holder: int | None = None

    async def take(self, connection: asyncpg.Connection) -> None:
        """Raises InstanceTaken when somebody else holds it."""
        if self._holder is not None:
            await connection.execute(END_HOLDER, self._holder, self._name)
        try:
            with fail_after(2 * PATIENCE):
                statement = "select pg_advisory_lock(hashtextextended($1, 0))"
                await connection.execute(statement, self._name, timeout=2 * PATIENCE)  # however short its others are
        except asyncpg.LockNotAvailableError as error:
            raise InstanceTaken(f"another daemon holds {self._name}") from error
        self._holder = connection.get_server_pid()
