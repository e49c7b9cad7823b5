"""How the daemon leaves: detach, drain or interrupt. If it fails, agents live until their deadline."""

from signal import SIGINT, SIGTERM

import structlog
from anyio import CancelScope, Event, move_on_after, open_signal_receiver

from leasehold import sdnotify
from leasehold.db.away import GONE
from leasehold.db.calls import Database
from leasehold.db.listen import background_race
from leasehold.runs.lease import Lease, LeaseKeeper
from leasehold.runs.roster import Roster
from leasehold.settings import Settings

log = structlog.get_logger()

SETTLING = 15.0
"""Seconds beyond the grace for trees to be swept and verdicts to be written; then the next life settles them."""


class Stopper:
    """First signal: claim no more, leave by `stop_mode`. Second signal: end the runs now."""

    def __init__(self, settings: Settings, roster: Roster, lease: Lease, leases: LeaseKeeper) -> None:
        self._settings = settings
        self._roster = roster
        self._lease = lease
        self._leases = leases
        self._hurry = Event()

    async def stop_on_signal(self, claiming: CancelScope) -> None:
        """Turn TERM and INT into leaving."""
        with open_signal_receiver(SIGTERM, SIGINT) as signals:
            async for signal in signals:
                if claiming.cancel_called:
                    self._hurry.set()
                    continue
                mode = self._settings.leave
                log.info("stop_requested", signal=signal.name, stop_mode=mode, running=len(self._roster.held))
                sdnotify.stopping(f"stopping ({mode}), {len(self._roster.held)} running")
                claiming.cancel()

    async def leave(self) -> None:
        """See the runs off, bounded; what is still here then is left to the keeper and the next life."""
        if self._settings.leave == "detach":
            await self._detach()
        else:
            if self._settings.leave == "drain":
                await self._drain()
            if self._roster.held:
                await self._interrupt()

    async def deregister(self, db: Database) -> None:
        """With nothing left behind, end this life in the database too, so that nobody waits for its lease."""
        if self._roster.held:
            return
        try:
            with move_on_after(5):
                await db.deregister_worker(self._lease.worker)
        except GONE as error:
            log.warning("deregister_failed", error=str(error))

    async def _detach(self) -> None:
        held = len(self._roster.held)
        log.info("detaching", running=held, why="agents live on under the keeper; the next daemon takes them up")
        if not held:
            return
        try:
            with move_on_after(5):
                await self._leases.renew()  # a whole lease for the next life to come up in
        except GONE as error:
            log.warning("renewal_failed", error=str(error))

    async def _drain(self) -> None:
        log.info("draining", running=len(self._roster.held), at_most_seconds=self._settings.drain.total_seconds())
        with move_on_after(self._settings.drain.total_seconds()):
            async with background_race(self._roster.empty, self._hurry):
                pass

    async def _interrupt(self) -> None:
        log.info("interrupting", running=len(self._roster.held), attempts_used=0)
        self._roster.stop_all("interrupt")
        with move_on_after(self._settings.grace.total_seconds() + SETTLING):
            await self._roster.empty.wait()
