"""Turn queued jobs into runs, as places come free. If it fails, the daemon fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from anyio import CancelScope, current_time, move_on_after, sleep

from leasehold import metrics
from leasehold.bell import Bell
from leasehold.db.away import AWAY
from leasehold.db.calls import Database
from leasehold.errors import WorkerClosed
from leasehold.loops import jittered
from leasehold.models import Claim, boottime
from leasehold.processes.keeper import Keeper
from leasehold.runs.lease import Lease
from leasehold.runs.pulse import Pulse
from leasehold.runs.reserve import Reserve
from leasehold.runs.roster import Roster
from leasehold.settings import Settings

log = structlog.get_logger()

COOL_DOWN = 0.05
"""Seconds between two armings of the bell: a burst of inserts costs few notices."""
START = 5.0
"""Seconds to read what was claimed and to start it; then the next renewal, or the next life, takes it up."""
SECOND_LOOKS = (0.1, 1.0)
"""Seconds after going idle at which to look again: a commit may have been under way while we armed the bell."""
LONGEST_MISS = 1.0
"""Seconds between looks at what is due and held by somebody's open transaction; the first come sooner."""

Start = Callable[[Sequence[int]], Awaitable[None]]


@dataclass(slots=True)
class Idle:
    """How long the claim has found nothing, and so how long it may sleep."""

    looks: int = 0
    misses: int = 0  # looks in a row at something that is due and not to be had: somebody else holds its row
    armed_at: float = float("-inf")

    def pause(self, poll: float, due: float | None) -> float:
        """Seconds until the next look: soon after going idle, then the poll or the next `run_at`."""
        if self.looks < len(SECOND_LOOKS):
            pause = SECOND_LOOKS[self.looks]
            self.looks += 1
        else:
            pause = jittered(poll)
        if due is None:
            return pause
        self.misses = min(self.misses + 1, 20) if due <= 0 else 0
        return max(min(LONGEST_MISS, 0.0025 * 2.0**self.misses), min(pause, due))


class Claimer:
    """One look at a time: claim, arm the bell when places stay free, sleep until something rings."""

    def __init__(
        self, settings: Settings, db: Database, lease: Lease, roster: Roster, keeper: Keeper, pulse: Pulse, wake: Bell
    ) -> None:
        self._poll = settings.poll.total_seconds()
        self._least = settings.grace.total_seconds() + (settings.lease - settings.margin).total_seconds() / 10
        self._db = db
        self._lease = lease
        self._roster = roster
        self._keeper = keeper
        self._pulse = pulse
        self._wake = wake
        self._reserve = Reserve(settings.state_dir, settings.disk_reserve)
        self._idle = Idle()

    async def claim_forever(self, start: Start) -> None:
        """Look, then wait for a notice, a freed place, the next `run_at`, or the poll; forever."""
        pause = 0.0
        while True:
            if await self._wake.wait(at_most=pause):
                self._idle.looks = 0
            self._pulse.beat("claim")
            try:
                pause = await self._look(start)
            except WorkerClosed:
                pause = 1.0  # the lease loop registers us anew
            except AWAY:
                await sleep(jittered(0.5))
                pause = 0.0  # the ring that brought us here has not been answered

    async def _look(self, start: Start) -> float:
        if not self._roster.free or not self._keeper.connected:
            return jittered(self._poll)
        if self._lease.proved - boottime() < self._least:  # what we started now would be stopped at once
            return jittered(0.5)
        if not self._reserve.is_there():
            return jittered(min(self._poll, 5.0))
        if await self._claim(start):
            return self._poll
        await sleep(max(0.0, self._idle.armed_at + COOL_DOWN - current_time()))
        await self._db.listen_again()  # arm, then look: what is committed from here on rings
        self._idle.armed_at = current_time()
        if await self._claim(start):
            return self._poll
        due = await self._db.next_due(self._lease.worker) if self._roster.free else None
        return self._idle.pause(self._poll, due.total_seconds() if due is not None else None)

    async def _claim(self, start: Start) -> bool:
        """Fill the free places; True when all are filled now."""
        while self._roster.free:
            claims = await self._open()
            if not claims:
                return False
            self._idle.looks = 0
            with move_on_after(START, shield=True):  # what is claimed is started, also when we are leaving
                await start([claim.key.id for claim in claims])
        return True

    async def _open(self) -> list[Claim]:
        """Claim and admit. Shielded: an answer that we do not stay to hear is a run that nobody runs."""
        proved = self._lease.proved  # rule 1: proved before the claim was sent
        with CancelScope(shield=True), self._roster.claiming():
            claims = await self._db.claim(self._lease.worker, self._roster.free)
            for claim in claims:
                self._roster.admit(claim.key, claim.job_id, claim.attempt, proved)
        metrics.CLAIMS.inc()
        metrics.CLAIMED_RUNS.inc(len(claims))
        if claims:
            log.debug("claim_decided", runs=len(claims), free=self._roster.free)
        return claims
