"""What became of runs that the database has given up or given away: end them, report what really happened, let them go.

If it fails, an outcome waits on disk for the next life.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from anyio import CapacityLimiter, sleep

from leasehold.agents.command import CommandAdapter
from leasehold.agents.registry import adapter_for
from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, RunRefused, WorkerClosed
from leasehold.events.lanes import Trim
from leasehold.events.recorder import Recorder
from leasehold.models import EventRow, Exit, OutputRow, Run, RunKey, Stream, Verdict
from leasehold.processes.keeper import Keeper, KeptRun
from leasehold.runs.given import with_secrets
from leasehold.runs.judge import held_to, judge
from leasehold.runs.lease import Lease
from leasehold.runs.settle import Settler

log = structlog.get_logger()

BATCH_BYTES = 1024 * 1024
BATCH_REPORTS = 500


class LateOutlet:
    """Where output and usage of a lost run go; its other events are only folded into its outcome (rule 20)."""

    def __init__(self, db: Database, lease: Lease, readers: CapacityLimiter) -> None:
        self._db = db
        self._lease = lease
        self._rows: list[OutputRow] = []
        self._used: list[EventRow] = []
        self.readers = readers

    async def ship(self, item: EventRow | OutputRow | Trim) -> None:
        """Keep a batch together. What scrolled out of the tail is forgotten with the late outcome."""
        if isinstance(item, OutputRow):
            self._rows.append(item)
        elif isinstance(item, EventRow) and item.event.kind == "usage":
            self._used.append(item)
        if len(self._used) >= BATCH_REPORTS or sum(len(row.raw) for row in self._rows) >= BATCH_BYTES:
            await self.shipped(item.run)

    async def shipped(self, run: RunKey) -> None:
        """Return once everything so far is in the database. Raises RunRefused."""
        if self._rows:
            await self._db.patiently(self._db.append_late_output, self._lease.worker, run, self._rows)
            self._rows = []
        if self._used:
            await self._db.patiently(self._db.report_usage, self._lease.worker, run, self._used)
            self._used = []

    async def save(self, run: RunKey, state: Mapping[str, Any]) -> bool:
        """Nobody goes on from a run that is over."""
        del run, state
        return False

    async def stored(self, run: RunKey, stream: Stream, after: int, past: int) -> list[tuple[int, bytes]]:
        """Some of the rows that begin behind `after` and before `past`, in order; none: there are no more."""
        return await self._db.patiently(self._db.read_output, run, stream, after, past)


class LateSettler:
    """Settles what the keeper has and the database does not give us."""

    def __init__(
        self, db: Database, keeper: Keeper, lease: Lease, settler: Settler, readers: CapacityLimiter, runs: Path
    ) -> None:
        self._db = db
        self._keeper = keeper
        self._lease = lease
        self._settler = settler
        self._readers = readers
        self._runs = runs

    async def settle_stranger(self, kept: KeptRun) -> None:
        """A tree, or an exit record, of a run that is not ours any more."""
        try:
            ending = await self._end(kept)
            if kept.key is not None:
                await self.settle(kept.key, ending, judge(ending, CommandAdapter()), {})
            else:  # stopped before it was spawned: nothing happened that anybody should hear of
                await self._settler.forget(kept.run_id)
        except Exception:  # what an agent of an earlier life has left behind must not end this one
            log.exception("run_crashed", run_id=kept.run_id, run_directory="kept")

    async def _end(self, kept: KeptRun) -> Exit:
        while kept.exit is None:
            try:
                await self._keeper.stop(kept.run_id, "lost", [("TERM", 1.0)])
                break
            except KeeperAway:
                await sleep(0.5)
        return await self._keeper.exited(kept.run_id)

    async def make_room(self, kept: KeptRun) -> None:
        """Another run has had this id, in a database that a failover has undone (rule 19): end it and let it go."""
        log.warning(
            "run_refused", run_id=kept.run_id, error="another run has had this id", decided="end it, start ours"
        )
        await self._end(kept)
        await self._settler.forget(kept.run_id)

    async def settle(self, key: RunKey, ending: Exit, verdict: Verdict, output: dict[str, Any]) -> None:
        """Report what really became of a run whose tree is gone, as long as the database will still hear it."""
        try:
            lost = await self._db.patiently(self._db.read_late, self._lease.worker, [key])
            if lost:
                await self._settle_late(lost[0], ending)
            else:  # nobody has given it up, or it is settled, or it was never known here: the answer says which
                await self._settler.settle(key, ending, verdict, output)
        except (RunRefused, WorkerClosed) as error:
            log.warning("run_refused", run_id=key.id, error=str(error), run_directory="kept")

    async def _settle_late(self, run: Run, ending: Exit) -> None:
        adapter = adapter_for(run)
        outlet = LateOutlet(self._db, self._lease, self._readers)
        whole = replace(await with_secrets(run), events_mark=-1)  # whatever a later run of the job has set it to
        with Recorder(whole, adapter, outlet, self._keeper, self._runs / str(run.id)) as recorder:
            output = await recorder.end()
        await self._settler.settle(run.key, ending, judge(held_to(run.output_limit, ending), adapter), output)
