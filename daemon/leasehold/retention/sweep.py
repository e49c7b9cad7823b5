"""Let go of rows that are past their time, in small batches. If it fails, they stay longer; another daemon sweeps too."""

import structlog
from anyio import sleep

from leasehold.db.calls import Database
from leasehold.runs.lease import Lease

log = structlog.get_logger()

BATCHES = 100
"""Of one rule in one turn: the others want theirs, too."""
PAUSE = 0.02
"""Seconds between two batches: claims and verdicts go first."""


class Sweeper:
    """Asks for one batch after the other until a round has nothing left. What goes is decided in SQL."""

    def __init__(self, db: Database, lease: Lease) -> None:
        self._db = db
        self._lease = lease

    async def sweep(self) -> None:
        """One turn: every rule of `leasehold.retention`."""
        after: str | None = None
        batches = removed = 0
        while batch := await self._db.sweep_retention(self._lease.worker, after):
            what, gone, more = batch
            batches, removed = batches + 1, removed + gone
            if not more or batches >= BATCHES:
                if removed:
                    log.info("rows_removed", what=what, rows=removed, batches=batches)
                after, batches, removed = what, 0, 0
            await sleep(PAUSE)
