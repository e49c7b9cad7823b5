"""Hand a verdict to the database, then let the run directory go. If it fails, one run's outcome waits on disk."""

from typing import Any

import structlog
from anyio import sleep

from leasehold import metrics
from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, KeeperRefused, RunRefused, WorkerClosed
from leasehold.models import Exit, RunKey, Settled, Verdict
from leasehold.processes.keeper import Keeper
from leasehold.runs.lease import Lease

log = structlog.get_logger()

ENDED_OTHERWISE = "LH010"
UNKNOWN_RUN = "LH013"


class Settler:
    """The last mile: an exit record is kept until the database has the outcome."""

    def __init__(self, db: Database, keeper: Keeper, lease: Lease) -> None:
        self._db = db
        self._keeper = keeper
        self._lease = lease

    async def settle(self, key: RunKey, ending: Exit, verdict: Verdict, output: dict[str, Any]) -> None:
        """Settle the run; waits for the database for as long as this daemon lives."""
        settled = await self._finish(key, ending, verdict, output)
        if settled is not None:
            metrics.RUN_OUTCOMES.labels(verdict.outcome, verdict.reason or "ok").inc()
            log.info(
                "run_late" if settled.disposition == "late" else "run_settled", run_id=key.id,
                outcome=verdict.outcome, reason=verdict.reason, message=verdict.message, job_status=settled.job_status,
                retry_at=settled.retry_at.isoformat() if settled.retry_at else None, seconds=round(ending.seconds, 3),
            )  # fmt: skip

    async def _finish(self, key: RunKey, ending: Exit, verdict: Verdict, output: dict[str, Any]) -> Settled | None:
        resources = {
            **ending.usage,
            "seconds": ending.seconds,
            "swept": ending.swept,
            "containment": ending.containment,
            **({"tree": ending.tree} if ending.tree else {}),
        }
        try:
            settled = await self._db.patiently(
                self._db.finish_run,
                self._lease.worker,
                key,
                verdict,
                ending.exit_code,
                ending.signal,
                resources,
                output,
            )
        except RunRefused as error:
            log.warning("run_refused", run_id=key.id, error=str(error))
            if error.code == ENDED_OTHERWISE:
                await self.forget(key.id)
            return None
        except WorkerClosed as error:
            log.warning("run_refused", run_id=key.id, error=str(error))
            return None
        await self.forget(key.id)
        return settled

    async def forget(self, run_id: int) -> None:
        """The run directory goes only now. If the keeper is away, the next adoption finds the record and repeats."""
        for _ in range(3):
            try:
                await self._keeper.forget(run_id)
                return
            except KeeperAway:
                await sleep(0.5)
            except KeeperRefused as error:
                log.warning("forget_failed", run_id=run_id, error=str(error))
                return
