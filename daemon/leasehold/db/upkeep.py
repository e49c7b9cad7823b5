"""The calls about what is due and what may go: schedules, retention. If one fails, its caller decides what fails."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from leasehold.db.access import Access, Rows
from leasehold.models import DueSchedule, Removal, Worker


class Upkeep(Access):
    """Every SQL function of that kind, one method each, same name."""

    async def next_due(self, worker: Worker) -> timedelta | None:
        """How long until the earliest job whose time has not come yet; None: there is none."""
        rows = await self._fetch("select leasehold.next_due($1)", worker.id)
        due: timedelta | None = rows[0][0]
        return due

    async def expire_interactions(self, worker: Worker) -> tuple[list[tuple[int, int, str]], timedelta | None]:
        """(interaction, job, `deny` | `cancel` | `asked_again`) of those whose time is over, and how long until the next one's is."""
        rows = await self._fetch("select * from leasehold.expire_interactions($1, $2)", worker.id, worker.token)
        ended = [(row["interaction"], row["job_id"], row["what"]) for row in rows if row["interaction"] is not None]
        return ended, rows[-1]["next_in"]

    async def due_schedules(self, worker: Worker, most: int) -> list[DueSchedule]:
        """Up to `most` schedules that are due, and the first that is not."""
        rows = await self._fetch("select * from leasehold.due_schedules($1, $2, $3)", worker.id, worker.token, most)
        return [DueSchedule(row["schedule"], *list(row.values())[1:]) for row in rows]

    async def fire_schedule(self, worker: Worker, schedule: DueSchedule, ticks: Sequence[datetime] | None) -> Rows:
        """Fire what has come of it and advance it: (what, tick, job_id, detail)."""
        return await self._fetch(
            "select * from leasehold.fire_schedule($1, $2, $3, $4, $5, $6)",
            worker.id, worker.token, schedule.id, schedule.version, schedule.next_at, ticks,
        )  # fmt: skip

    async def fail_schedule(self, worker: Worker, schedule: DueSchedule, error: str) -> bool:
        """Say in its row why it cannot be fired; False when it is not what we have read any more."""
        rows = await self._fetch(
            "select leasehold.fail_schedule($1, $2, $3, $4, $5, $6)",
            worker.id, worker.token, schedule.id, schedule.version, schedule.next_at, error,
        )  # fmt: skip
        return bool(rows[0][0])

    async def sweep_retention(self, worker: Worker, after: str | None) -> tuple[str, int, bool] | None:
        """One batch of the rule behind `after`: which, how many rows went, is there more; None: the round is over."""
        rows = await self._fetch("select * from leasehold.sweep_retention($1, $2, $3)", worker.id, worker.token, after)
        return (rows[0]["what"], rows[0]["removed"], rows[0]["more"]) if rows else None

    async def take_removals(self, worker: Worker) -> list[Removal]:
        """Directories that are to go from this state directory now."""
        rows = await self._fetch("select * from leasehold.take_removals($1, $2)", worker.id, worker.token)
        return [Removal(row["removal"], row["what"], row["path"], row["run_token"]) for row in rows]

    async def end_removal(self, worker: Worker, removal: Removal, error: str | None) -> None:
        """It is gone, or why not."""
        await self._fetch("select leasehold.end_removal($1, $2, $3, $4)", worker.id, worker.token, removal.id, error)

    async def find_orphans(self, worker: Worker, runs: Sequence[tuple[int, UUID | None]]) -> list[int]:
        """Run directories that are here and that nobody follows; those that are wanted gone from now on."""
        rows = await self._fetch(
            "select * from leasehold.find_orphans($1, $2, $3, $4)",
            worker.id, worker.token, [run for run, _ in runs], [token for _, token in runs],
        )  # fmt: skip
        return [row[0] for row in rows]
