"""What it looks like when Postgres is away, and what its named refusals mean. Pure apart from one log line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import structlog

from leasehold.errors import RunHeld, RunRefused, WorkerClosed

log = structlog.get_logger()

AWAY: tuple[type[Exception], ...] = (
    OSError,  # also every TimeoutError
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that became a standby
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,  # deadlock or serialisation failure: the same call again is right
    asyncpg.InternalClientError,  # asyncpg's own confusion over a connection that died under it
)
"""Try again later. Anything else is a mistake of ours, and trying again will not mend it."""

Refusal = asyncpg.PostgresError
"""Everything the server says no to, for rooms that know no driver."""

GONE: tuple[type[Exception], ...] = (*AWAY, WorkerClosed)
"""For what comes round again by itself: away, or not ours any more, which the lease loop mends."""

CHORE: tuple[type[Exception], ...] = (*GONE, Refusal)
"""For house-keeping, which must not end the daemon whatever the server says to it."""

WORKER_CLOSED = {"LH012"}
RUN_REFUSED = {"LH010", "LH011", "LH013"}


def words(error: BaseException) -> str:
    """What an error says, in one line, without the hint that asyncpg appends."""
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return str(said).partition("\n")[0]


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn our own SQLSTATEs into our own exceptions."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate in WORKER_CLOSED:
            raise WorkerClosed(words(error)) from error
        if error.sqlstate in RUN_REFUSED:
            raise RunRefused(error.sqlstate or "", words(error)) from error
        raise


@contextmanager
def held_named() -> Iterator[None]:
    """Turn a lock that was not to be had into RunHeld: for what can go on with others meanwhile."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise RunHeld(words(error)) from error


class Weather:
    """Says once that the database went away, and once that it is back, however many calls met it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None

    @property
    def fair(self) -> bool:
        """Did the last call get an answer?"""
        return self._since is None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch one call."""
        try:
            yield
        except AWAY as error:
            if self._since is None and not isinstance(
                error, asyncpg.LockNotAvailableError | asyncpg.TransactionRollbackError
            ):
                self._since = time.monotonic()
                log.warning("database_away", connection=self._name, error=words(error))
            raise
        if self._since is not None:
            log.info("database_back", connection=self._name, seconds=round(time.monotonic() - self._since, 1))
            self._since = None
