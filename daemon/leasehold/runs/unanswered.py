"""What nobody has answered in time. If it fails, a log line; the database knows what is over, and another daemon looks, too."""

from datetime import timedelta

import structlog
from anyio import sleep

from leasehold.db.away import GONE
from leasehold.db.calls import Database
from leasehold.loops import jittered
from leasehold.runs.lease import Lease

log = structlog.get_logger()

AT_ONCE = 0.05
"""Seconds between two looks at least: one look ends a hundred."""


class Unanswered:
    """Wakes when the next interaction's time is over, and in between now and then: new ones have times of their own."""

    def __init__(self, db: Database, lease: Lease, most: timedelta) -> None:
        self._db = db
        self._lease = lease
        self._most = most.total_seconds()

    async def expire_forever(self) -> None:
        """Look, sleep, look again."""
        while True:
            pause = self._most
            try:
                pause = min(pause, await self.expire())
            except GONE as error:
                log.warning("chore_failed", chore="expire_interactions", error=str(error) or repr(error))
            await sleep(max(AT_ONCE, jittered(pause)))

    async def expire(self) -> float:
        """One turn; answers in how many seconds the next one is due."""
        ended, due = await self._db.expire_interactions(self._lease.worker)
        for interaction, job, what in ended:
            log.warning("interaction_expired", interaction=interaction, job_id=job, what=what)
        return due.total_seconds() if due is not None else self._most
