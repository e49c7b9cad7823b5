"""End the runs of workers that are seen dead, and jobs that waited too long. If it fails, a log line; another daemon reaps too."""

from dataclasses import dataclass
from datetime import timedelta

import structlog

from leasehold.db.calls import Database
from leasehold.models import boottime
from leasehold.runs.lease import Lease

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sighting:
    """A worker's renewal counter, and when we first saw it so (CLOCK_BOOTTIME)."""

    renewals: int
    first: float


class Reaper:
    """The database's clock is a wall clock and may step, so a lease must also stand still on our own (rule 17)."""

    def __init__(self, db: Database, lease: Lease, renewal: timedelta) -> None:
        self._db = db
        self._lease = lease
        self._grace = renewal.total_seconds()
        self._seen: dict[int, Sighting] = {}

    async def reap(self) -> None:
        """One turn: look, remember, end what has stood still for a whole lease."""
        steady = self._lease.steady_since
        if steady is None or boottime() - steady < self._grace:
            return  # after an outage the others come first: settle, renew, only then reap (rule 23)
        ripe = await self._watch()
        rows = await self._db.reap(self._lease.worker, list(ripe), [seen.renewals for seen in ripe.values()])
        for row in rows:
            log.warning(
                "reaped", run_id=row["run_id"], job_id=row["job_id"], lost_worker=row["lost_worker"],
                instance=row["instance"], job_status=row["job_status"],
            )  # fmt: skip

    async def expire(self) -> None:
        """One turn: jobs that have waited longer than their agent's `queue_timeout`."""
        for job in await self._db.expire_queued(self._lease.worker):
            log.warning("job_expired", job_id=job, reason="queue")

    async def _watch(self) -> dict[int, Sighting]:
        now = boottime()
        seen: dict[int, Sighting] = {}
        ripe: dict[int, Sighting] = {}
        for row in await self._db.watch_workers():
            before = self._seen.get(row["worker"])
            same = before is not None and before.renewals == row["renewals"]
            sighting = before if before is not None and same else Sighting(row["renewals"], now)
            seen[row["worker"]] = sighting
            if row["expired"] and now - sighting.first >= row["lease"].total_seconds():
                ripe[row["worker"]] = sighting
        self._seen = seen
        return ripe
