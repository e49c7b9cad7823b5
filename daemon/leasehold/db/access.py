"""A pool and how it is asked. If a call fails, its caller decides what fails."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import asyncpg
from anyio import sleep

from leasehold.db.away import AWAY, Refusal, Weather, named_errors, words
from leasehold.loops import jittered

P = ParamSpec("P")
T = TypeVar("T")
Rows = list[asyncpg.Record]


class Access:
    """A pool and the functions behind it. Raises AWAY, WorkerClosed or RunRefused; anything else is our mistake."""

    def __init__(self, pool: asyncpg.Pool, weather: Weather, answer: float) -> None:
        self._pool = pool
        self._answer = answer
        self._weather = weather

    @property
    def connected(self) -> bool:
        """Did the last call get an answer?"""
        return self._weather.fair

    async def _fetch(self, statement: str, *arguments: object) -> Rows:
        with self._weather.watched(), named_errors():
            async with self._connection() as connection:
                rows: Rows = await connection.fetch(statement, *arguments)
                return rows

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """A connection of the pool. Whatever keeps us from getting one means: away."""
        try:
            connection = await self._pool.acquire(timeout=10)
        except Refusal as error:
            raise ConnectionError(words(error)) from error
        try:
            yield connection
        finally:
            await self._pool.release(connection, timeout=min(10.0, self._answer))

    async def patiently(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make `call` until Postgres answers. It may be made twice, so it must not mind that."""
        while True:
            try:
                return await call(*args, **kwargs)
            except AWAY:
                await sleep(jittered(0.5))
