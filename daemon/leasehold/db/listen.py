"""Hear NOTIFY for as long as the daemon lives, over a connection of its own. Deaf, the daemon only polls."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog
from anyio import Event, create_task_group, fail_after, move_on_after, sleep

from leasehold.bell import Bell
from leasehold.db.away import AWAY, Refusal, words
from leasehold.db.connect import connect
from leasehold.loops import background, jittered

log = structlog.get_logger()

PROBE = 15.0
"""Seconds of silence before asking the server whether it is still there."""
ANSWER = 5.0
"""Seconds the server has to answer."""
BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)


class Listener:
    """Channels and the bells they ring. After every (re)connect all bells ring: what was missed is unknown."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._bells: dict[str, Bell] = {}
        self._changed = Event()
        self.ready = Event()

    def hear(self, channel: str, bell: Bell) -> None:
        """Ring `bell` at every notice on `channel`, from now or from the next connection on."""
        self._bells[channel] = bell
        self._changed.set()

    async def listen_forever(self) -> None:
        """Connect, listen, probe; on loss say so, ring everything, and connect again."""
        failures, lost_at = 0, None
        while True:
            try:
                async with self._connected() as (connection, gone):
                    if lost_at is not None:
                        log.info("listen_ready", deaf_seconds=round(time.monotonic() - lost_at, 1))
                    failures, lost_at = 0, None
                    await self._until_gone(connection, gone)
            except AWAY as error:
                if not failures:
                    log.warning("listen_lost", error=words(error), meanwhile="polling")
            lost_at = lost_at or time.monotonic()
            await sleep(jittered(BACKOFF[min(failures, len(BACKOFF) - 1)]))
            failures += 1

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncpg.Connection, Event]]:
        try:
            with fail_after(2 * ANSWER):
                connection = await connect(self._dsn, self._name)
        except Refusal as error:
            raise ConnectionError(words(error)) from error
        try:
            gone = Event()
            connection.add_termination_listener(lambda _: gone.set())
            yield connection, gone
        finally:
            connection.terminate()  # a polite close could wait for a server that is not there

    async def _until_gone(self, connection: asyncpg.Connection, gone: Event) -> None:
        heard: set[str] = set()
        while not gone.is_set():
            self._changed = Event()
            for channel in self._bells.keys() - heard:
                with fail_after(ANSWER):
                    await connection.add_listener(channel, self._notice)
                heard.add(channel)
                self._bells[channel].ring()
            self.ready.set()
            if await self._silence(gone):
                with fail_after(ANSWER):
                    await connection.execute("select")
        raise ConnectionError("the server closed the connection")

    async def _silence(self, gone: Event) -> bool:
        """Wait until the connection ends or a channel is added; True after PROBE seconds of neither."""
        with move_on_after(PROBE) as quiet:
            async with background_race(gone, self._changed):
                pass
        return quiet.cancelled_caught

    def _notice(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        if bell := self._bells.get(channel):
            bell.ring()


@asynccontextmanager
async def background_race(*events: Event) -> AsyncIterator[None]:
    """Leave the block when the first of `events` is set."""
    async with create_task_group() as group:

        async def wait(event: Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        for event in events:
            group.start_soon(wait, event)
        yield


@asynccontextmanager
async def open_listener(dsn: str, name: str) -> AsyncIterator[Listener]:
    """A listener at work beside the block."""
    listener = Listener(dsn, name)
    async with background() as group:
        group.start_soon(listener.listen_forever)
        yield listener
