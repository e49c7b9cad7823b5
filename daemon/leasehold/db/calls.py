"""Every SQL function the daemon calls, one method each, same name. If a call fails, its caller decides what fails."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from leasehold.db.access import Rows
from leasehold.db.away import Weather, held_named
from leasehold.db.connect import ANSWER, connect_pool
from leasehold.db.inputs import Inputs
from leasehold.db.places import Places
from leasehold.db.results import Results
from leasehold.db.upkeep import Upkeep
from leasehold.models import Claim, EventRow, OutputRow, Run, RunKey, Settled, Verdict, Worker


class Database(Inputs, Places, Results, Upkeep):
    """Those about workers and runs, and with them all. Raises AWAY, WorkerClosed or RunRefused; anything else is our mistake."""

    async def register_worker(
        self, instance: str, host_id: str, boot_id: str, keeper_id: str, version: str, capacity: int,
        queues: Sequence[str] | None, lease: timedelta,
    ) -> Worker:  # fmt: skip
        """Begin a life of this daemon; its lease runs from the database's clock."""
        rows = await self._fetch(
            "select * from leasehold.register_worker($1, $2, $3, $4, $5, $6, $7, $8)",
            instance, host_id, boot_id, keeper_id, version, capacity, queues, lease,
        )  # fmt: skip
        return Worker(rows[0]["worker"], rows[0]["token"])

    async def adopt(self, worker: Worker, kept: Sequence[RunKey], lease: timedelta) -> list[tuple[str, RunKey]]:
        """Take over the runs of older lives of this instance: (`adopted` | `ended`, run)."""
        rows = await self._fetch(
            "select * from leasehold.adopt($1, $2, $3, $4, $5)",
            worker.id, worker.token, [key.id for key in kept], [key.token for key in kept], lease,
        )  # fmt: skip
        return [(row["what"], RunKey(row["run_id"], row["run_token"])) for row in rows]

    async def listen_again(self) -> None:
        """Arm the bell: the next producer that makes work rings."""
        await self._fetch("select leasehold.listen_again()")

    async def claim(self, worker: Worker, slots: int) -> list[Claim]:
        """Open up to `slots` runs. Ids only: bodies come from `read_runs`."""
        rows = await self._fetch("select * from leasehold.claim($1, $2, $3)", worker.id, worker.token, slots)
        return [Claim(RunKey(row["run_id"], row["run_token"]), row["job_id"], row["attempt"]) for row in rows]

    async def read_runs(self, worker: Worker, runs: Collection[int]) -> list[Run]:
        """The bodies of live runs of this worker; runs that are not (any more) are left out."""
        rows = await self._fetch("select * from leasehold.read_runs($1, $2, $3)", worker.id, worker.token, list(runs))
        return [_run(row) for row in rows]

    async def read_late(self, worker: Worker, runs: Sequence[RunKey]) -> list[Run]:
        """The bodies of runs given up as lost whose real outcome nobody has reported yet."""
        rows = await self._fetch(
            "select * from leasehold.read_late($1, $2, $3, $4)",
            worker.id, worker.token, [run.id for run in runs], [run.token for run in runs],
        )  # fmt: skip
        return [_run(row) for row in rows]

    async def append_late_output(self, worker: Worker, run: RunKey, rows: Sequence[OutputRow]) -> None:
        """The rest of a lost run's output, before its late outcome. A chunk that is there is skipped."""
        await self._fetch(
            "select leasehold.append_late_output($1, $2, $3, $4, $5, $6, $7)", worker.id, worker.token, run.id, run.token,
            [row.stream for row in rows], [row.offset for row in rows], [row.raw for row in rows],
        )  # fmt: skip

    async def report_usage(self, worker: Worker, run: RunKey, rows: Sequence[EventRow]) -> None:
        """What a lost run used, before its late outcome. A mark that is there is skipped."""
        await self._fetch(
            "select leasehold.report_usage($1, $2, $3, $4, $5, $6)", worker.id, worker.token, run.id, run.token,
            [row.mark for row in rows], [row.event.data for row in rows],
        )  # fmt: skip

    async def renew(self, worker: Worker, runs: Collection[int], lease: timedelta) -> list[tuple[str, int | None, str]]:
        """Extend the lease and hear what is pending: (`lost` | `unnamed` | `cancel` | `budget` | `input`, run, detail)."""
        rows = await self._fetch(
            "select * from leasehold.renew($1, $2, $3, $4)", worker.id, worker.token, list(runs), lease
        )
        return [(row["what"], row["run_id"], row["detail"] or "") for row in rows]

    async def start_run(self, worker: Worker, run: RunKey, identity: dict[str, Any]) -> None:
        """The run's process lives; `identity` says which one it is. Repeatable."""
        await self._fetch(
            "select leasehold.start_run($1, $2, $3, $4, $5)", worker.id, worker.token, run.id, run.token, identity
        )

    async def stop_run(self, worker: Worker, run: RunKey, why: str) -> None:
        """The run is being ended, and why. Repeatable."""
        await self._fetch(
            "select leasehold.stop_run($1, $2, $3, $4, $5)", worker.id, worker.token, run.id, run.token, why
        )

    async def suspect_run(self, worker: Worker, run: RunKey, clock: str, facts: dict[str, Any]) -> None:
        """One of the run's clocks is about to strike."""
        await self._fetch(
            "select leasehold.suspect_run($1, $2, $3, $4, $5, $6)",
            worker.id,
            worker.token,
            run.id,
            run.token,
            clock,
            facts,
        )

    async def report_unkillable(self, worker: Worker, run: RunKey, facts: dict[str, Any]) -> None:
        """The run's tree survived SIGKILL. Repeatable."""
        await self._fetch(
            "select leasehold.report_unkillable($1, $2, $3, $4, $5)", worker.id, worker.token, run.id, run.token, facts
        )

    async def expire_queued(self, worker: Worker) -> list[int]:
        """End jobs that have waited longer than their agent allows; their ids."""
        return [
            row[0]
            for row in await self._fetch("select * from leasehold.expire_queued($1, $2)", worker.id, worker.token)
        ]

    async def trim_output(self, trims: Sequence[tuple[RunKey, str, int, int]]) -> set[int]:
        """Forget stored output wholly within (run, stream, start, end); answers the runs that were refused."""
        return await self._written(
            "select * from leasehold.trim_output($1, $2, $3, $4, $5)",
            [run.id for run, _, _, _ in trims], [run.token for run, _, _, _ in trims],
            [stream for _, stream, _, _ in trims], [start for _, _, start, _ in trims], [end for _, _, _, end in trims],
        )  # fmt: skip

    async def save_checkpoints(self, checkpoints: Sequence[tuple[RunKey, Mapping[str, Any]]]) -> set[int]:
        """Where a daemon that takes these runs up may go on reading; answers the runs that were refused."""
        return await self._written(
            "select * from leasehold.save_checkpoints($1, $2, $3)",
            [run.id for run, _ in checkpoints], [run.token for run, _ in checkpoints], [dict(each) for _, each in checkpoints],
        )  # fmt: skip

    async def append_events(self, rows: Sequence[EventRow]) -> set[int]:
        """Append events of many runs; answers the runs that were refused. Exactly once by each row's mark.

        Raises RunHeld, with nothing written, if somebody's open transaction holds one of the jobs.
        """
        return await self._written(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
            [row.run.id for row in rows], [row.run.token for row in rows], [row.mark for row in rows],
            [row.event.kind for row in rows], [row.event.level for row in rows], [row.event.phase for row in rows],
            [row.event.message for row in rows], [row.event.data for row in rows],
        )  # fmt: skip

    async def append_output(self, rows: Sequence[OutputRow]) -> set[int]:
        """Append output of many runs; answers the runs that were refused. A chunk that is there is skipped."""
        return await self._written(
            "select * from leasehold.append_output($1, $2, $3, $4, $5)",
            [row.run.id for row in rows], [row.run.token for row in rows], [row.stream for row in rows],
            [row.offset for row in rows], [row.raw for row in rows],
        )  # fmt: skip

    async def held_runs(self, runs: Sequence[int]) -> set[int]:
        """Of these, those whose job somebody's open transaction holds."""
        return {row[0] for row in await self._fetch("select * from leasehold.held_runs($1)", list(runs))}

    async def _written(self, statement: str, *columns: object) -> set[int]:
        with held_named():
            return {row[0] for row in await self._fetch(statement, *columns)}

    async def read_output(self, run: RunKey, stream: str, after: int, past: int) -> list[tuple[int, bytes]]:
        """Some stored rows that begin behind `after` and before `past`, in order; none: there are no more."""
        rows = await self._fetch(
            "select * from leasehold.read_output($1, $2, $3, $4, $5)", run.id, run.token, stream, after, past
        )
        return [(row["byte_offset"], row["bytes"]) for row in rows]

    async def finish_run(
        self, worker: Worker, run: RunKey, verdict: Verdict, exit_code: int | None, signal: int | None,
        resources: dict[str, Any], output: dict[str, Any],
    ) -> Settled:  # fmt: skip
        """Settle a run whose tree is gone. The first verdict wins; the same again is harmless."""
        rows = await self._fetch(
            "select * from leasehold.finish_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            worker.id, worker.token, run.id, run.token, verdict.outcome, verdict.reason, verdict.message,
            exit_code, signal, verdict.result, resources, output,
        )  # fmt: skip
        return Settled(rows[0]["disposition"], rows[0]["job_status"], rows[0]["retry_at"])

    async def watch_workers(self) -> Rows:
        """All workers that are not closed: (worker, renewals, lease, expired)."""
        return await self._fetch("select * from leasehold.watch_workers()")

    async def reap(self, worker: Worker, suspects: Sequence[int], renewals: Sequence[int]) -> Rows:
        """End the runs of workers seen dead: (run_id, job_id, lost_worker, instance, job_status)."""
        return await self._fetch(
            "select * from leasehold.reap($1, $2, $3, $4)", worker.id, worker.token, list(suspects), list(renewals)
        )

    async def deregister_worker(self, worker: Worker) -> None:
        """End this life; refused while it has live runs."""
        await self._fetch("select leasehold.deregister_worker($1, $2)", worker.id, worker.token)


def _run(row: asyncpg.Record) -> Run:
    body = dict(row)
    body["key"] = RunKey(body.pop("run_id"), body.pop("run_token"))
    for name in ("command", "launcher"):
        body[name] = tuple(body[name] or ())
    return Run(**body)


@asynccontextmanager
async def open_database(
    dsn: str, name: str, size: int, *, own_lock: str | None = None, answer: float = ANSWER
) -> AsyncIterator[Database]:
    """A pool of up to `size` connections; with `own_lock` each of them holds that session lock or is refused."""
    async with connect_pool(dsn, name, size, own_lock, answer) as pool:
        yield Database(pool, Weather(name), answer)
