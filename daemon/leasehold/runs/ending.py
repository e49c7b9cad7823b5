"""Ask for a run's end, tell the database so, and say it when a tree will not die. If it fails, one run is ended late."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from anyio import sleep

from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, RunRefused, WorkerClosed
from leasehold.models import Run
from leasehold.processes.keeper import Keeper
from leasehold.runs.lease import Lease
from leasehold.runs.roster import Held, Roster
from leasehold.settings import Settings

log = structlog.get_logger()

IN_A_HURRY = ("lost", "interrupt")
"""Reasons of ours: the daemon's grace counts, should the agent's be longer."""


class Ender:
    """What happens to a run between the wish to end it and the death of its tree."""

    def __init__(self, settings: Settings, db: Database, keeper: Keeper, lease: Lease, roster: Roster) -> None:
        self._settings = settings
        self._db = db
        self._keeper = keeper
        self._lease = lease
        self._roster = roster

    def grace(self, run: Run) -> float:
        """Seconds between TERM and KILL when it is we who are in a hurry."""
        return min(run.stop_grace, self._settings.grace).total_seconds()

    async def obey(self, run: Run, held: Held) -> None:
        """When somebody asks for the end: the ladder, as often as the keeper needs to hear of it; then the row says so."""
        await held.stopping.wait()
        assert held.why is not None
        grace = self.grace(run) if held.why in IN_A_HURRY else run.stop_grace.total_seconds()
        log.info("run_stopping", why=held.why, grace=grace)
        while True:
            try:
                await self._keeper.stop(run.id, held.why, [("TERM", grace)])
                break
            except KeeperAway:
                await sleep(0.5)
        if held.why != "lost":
            await self._tell(self._db.stop_run, run, held.why)

    async def suspect(self, run: Run, clock: str, facts: Mapping[str, Any]) -> None:
        """A clock is about to strike: an event, before anything is stopped."""
        await self._tell(self._db.suspect_run, run, clock, dict(facts))

    async def watch_unkillable(self, run: Run, held: Held) -> None:
        """A tree that survives SIGKILL keeps its place, and whoever reads events, log or metrics learns of it."""
        processes = await self._keeper.unkillable(run.id)
        self._roster.give_up_on(held)
        log.error("run_unkillable", processes=processes, decided="its place stays taken until the tree is gone")
        await self._tell(self._db.report_unkillable, run, {"processes": processes})

    async def _tell(self, call: Callable[..., Awaitable[None]], run: Run, *words: object) -> None:
        """What is refused here is refused to everything we say of this run; whoever settles it says so."""
        try:
            await self._db.patiently(call, self._lease.worker, run.key, *words)
        except (RunRefused, WorkerClosed) as error:
            log.debug("run_refused", error=str(error), about=call.__name__)
