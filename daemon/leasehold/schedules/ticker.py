"""Fire schedules when they are due. If it fails, a log line; every daemon does it, and the database lets one of them do it once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from anyio import current_time, sleep

from leasehold.bell import Bell
from leasehold.db.away import GONE, Refusal, words
from leasehold.db.calls import Database
from leasehold.loops import jittered
from leasehold.models import DueSchedule
from leasehold.runs.lease import Lease
from leasehold.schedules.calendar import NoTick, ticks

log = structlog.get_logger()

CHANNEL = "leasehold_schedules"
"""Rung when a user has written a schedule."""
MOST = 100
"""Schedules in one look."""
COOL_DOWN = 0.2
"""Seconds between two looks at least: a burst of edits costs few."""
NOTHING = timedelta(0)


@dataclass(slots=True)
class Ticker:
    """Look at what is due, fire it, sleep until the next tick, an edit, or the poll."""

    poll: float
    db: Database
    lease: Lease
    bell: Bell
    in_vain: int = field(default=0, init=False)

    async def tick_forever(self) -> None:
        """Forever; an absent database or a lost lease is waited out."""
        pause = 0.0
        while True:
            await self.bell.wait(at_most=pause)
            looked_at = current_time()
            try:
                pause = await self._look()
            except GONE:  # said by others; the lease loop registers us anew
                pause = jittered(1.0)
            await sleep(max(0.0, looked_at + COOL_DOWN - current_time()) if pause > COOL_DOWN else 0.0)

    async def _look(self) -> float:
        """One look; how long to sleep."""
        schedules = await self.db.due_schedules(self.lease.worker, MOST)
        due = [schedule for schedule in schedules if schedule.due_in <= NOTHING]
        random.shuffle(due)  # several daemons look at the same moment
        if due:
            done = [await self._fire(schedule) for schedule in due]
            self.in_vain = 0 if any(done) else self.in_vain + 1
            return min(2.0, 0.05 * 2**self.in_vain) if self.in_vain else 0.0
        self.in_vain = 0
        return min([jittered(self.poll), *(schedule.due_in.total_seconds() + 0.002 for schedule in schedules)])

    async def _fire(self, schedule: DueSchedule) -> bool:
        """Fire one; False when somebody else has done it. Its mistakes are its own."""
        try:
            said = await self.db.fire_schedule(self.lease.worker, schedule, _ticks(schedule))
        except GONE:
            raise
        except (NoTick, Refusal) as error:
            return await self._fail(schedule, str(error) if isinstance(error, NoTick) else words(error))
        _tell(schedule, said)
        return not any(row["what"] == "taken" for row in said)

    async def _fail(self, schedule: DueSchedule, error: str) -> bool:
        if not await self.db.fail_schedule(self.lease.worker, schedule, error):
            return False
        log.warning("schedule_failed", schedule=schedule.id, name=schedule.name, error=error)
        return True


def _ticks(schedule: DueSchedule) -> list[datetime] | None:
    if schedule.cron is None:
        return None
    return ticks(
        schedule.cron, schedule.timezone, schedule.next_at, schedule.starts_at, schedule.now, schedule.missed_most
    )


def _tell(schedule: DueSchedule, said: Sequence[Any]) -> None:
    identity = {"schedule": schedule.id, "name": schedule.name}
    for row in said:
        if row["what"] == "fired":
            log.info(
                "schedule_fired", **identity, tick=row["tick"], job_id=row["job_id"], disposition=row["detail"],
                late=round((schedule.now - row["tick"]).total_seconds(), 3),
            )  # fmt: skip
        elif row["what"] == "failed":
            log.warning("schedule_failed", **identity, tick=row["tick"], error=row["detail"])
        elif row["what"] == "missed":
            log.warning("schedule_missed", **identity, since=row["tick"], policy=row["detail"])
