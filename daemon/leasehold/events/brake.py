"""Watch how far the agents are ahead of us: hold who is too far, say who has written too much. If it fails, the daemon fails."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import structlog
from anyio import Event, sleep

from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.loops import background
from leasehold.models import Run
from leasehold.processes.keeper import Keeper
from leasehold.processes.tail import Tail

log = structlog.get_logger()

HOLD_ABOVE = 16 * 1024 * 1024
"""Unread bytes from which on an agent is held: it waits as a writer to a full pipe would."""
RELEASE_BELOW = 4 * 1024 * 1024
"""Unread bytes from which on it may write again."""
LOOK, LOOK_CLOSELY = 0.025, 0.005
"""Seconds between two looks at the files, and while one of them grows fast."""
FAST = 1024 * 1024
"""Bytes between two looks that are fast."""
CLOSELY = 20
"""Looks that follow closely once somebody was fast or held: who is let go writes at once, with several GB in a second."""


@dataclass(slots=True, eq=False)
class Watched:
    """One run. `over` is set once it has written more than its `output_limit`."""

    run: Run
    tails: Sequence[Tail]
    held: bool
    times: int = 0
    size: int = 0
    closely: int = 0
    over: Event = field(default_factory=Event)

    @property
    def unread(self) -> int:
        """Bytes that wait to be read."""
        return sum(tail.size - tail.offset for tail in self.tails)

    def suspicious(self) -> bool:
        """Is it, or was it a moment ago, fast or held?"""
        before, self.size = self.size, sum(tail.size for tail in self.tails)
        self.closely = CLOSELY if self.held or self.size - before > FAST else max(0, self.closely - 1)
        return self.closely > 0

    @property
    def over_limit(self) -> bool:
        """Has it written more than it may?"""
        limit = self.run.output_limit
        return limit is not None and sum(tail.size for tail in self.tails) > limit


class Brake:
    """One look at all files at a time, so that many silent runs cost little."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._watched: set[Watched] = set()
        self._somebody = Event()

    @contextmanager
    def watching(self, run: Run, tails: Sequence[Tail], *, held: bool) -> Iterator[Watched]:
        """Watch a run while it is followed. One that was taken up may have been held by an earlier life."""
        watched = Watched(run, tails, held)
        self._watched.add(watched)
        self._somebody.set()
        try:
            yield watched
        finally:
            self._watched.discard(watched)

    async def watch_forever(self) -> None:
        """The loop."""
        while True:
            if not self._watched:
                self._somebody = Event()
                await self._somebody.wait()
            await sleep(LOOK_CLOSELY if await self.look() else LOOK)

    async def look(self) -> bool:
        """Look at everybody once, and decide; is one of them to be looked at closely?"""
        closely = False
        for watched in list(self._watched):
            if watched.over_limit:
                watched.over.set()
            closely = watched.suspicious() or closely
            await self._decide(watched)
        return closely

    async def _decide(self, watched: Watched) -> None:
        unread, run_id = watched.unread, watched.run.id
        try:
            if unread > HOLD_ABOVE and not watched.held:
                watched.held = True  # before it is asked: an answer can be lost
                await self._keeper.hold(run_id)
                self._tell(watched, unread)
            elif unread < RELEASE_BELOW and watched.held:
                await self._keeper.release(run_id)
                watched.held = False
        except KeeperAway:  # asked again at the next look
            pass
        except KeeperRefused:  # its tree is gone: asked no more
            watched.held = unread > HOLD_ABOVE

    @staticmethod
    def _tell(watched: Watched, unread: int) -> None:
        watched.times += 1
        if watched.times == 1:
            log.info("run_held", run_id=watched.run.id, job_id=watched.run.job_id, unread=unread)


@asynccontextmanager
async def open_brake(keeper: Keeper) -> AsyncIterator[Brake]:
    """A brake at work."""
    brake = Brake(keeper)
    async with background() as group:
        group.start_soon(brake.watch_forever)
        yield brake
