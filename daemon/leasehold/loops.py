"""Tasks that live beside the runs. A chore that fails is a log line; a service that fails is the daemon."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from anyio import create_task_group, sleep
from anyio.abc import TaskGroup

log = structlog.get_logger()


@asynccontextmanager
async def background() -> AsyncIterator[TaskGroup]:
    """A task group whose tasks never end by themselves: leaving the block ends them.

    What the block itself raises comes out as it is: one accident needs no group around it.
    """
    accident: Exception | None = None
    async with create_task_group() as group:
        try:
            yield group
        except Exception as error:
            accident = error
        group.cancel_scope.cancel()
    if accident is not None:
        raise accident


def jittered(seconds: float) -> float:
    """About `seconds`, so that many daemons do not act in step."""
    return seconds * random.uniform(0.85, 1.15)


async def every(seconds: float, chore: Callable[[], Awaitable[object]], expected: tuple[type[Exception], ...]) -> None:
    """Do `chore` now and about every `seconds`; an `expected` error is reported, and the next turn tries again."""
    while True:
        try:
            await chore()
        except expected as error:
            log.warning(
                "chore_failed",
                chore=getattr(getattr(chore, "func", chore), "__name__", "?"),
                error=str(error) or repr(error),
            )
        await sleep(jittered(seconds))
