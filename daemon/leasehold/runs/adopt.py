"""Begin a life: register, take over what the last life left, start what is claimed. If it fails, the daemon fails."""

from collections.abc import Sequence
from pathlib import Path

import structlog
from anyio import sleep
from anyio.abc import TaskGroup

from leasehold import __version__
from leasehold.bell import Bell
from leasehold.db.calls import Database
from leasehold.db.listen import Listener
from leasehold.errors import KeeperAway, WorkerClosed
from leasehold.models import Worker, boottime
from leasehold.processes.keeper import Keeper, KeptRun
from leasehold.runs.lease import Lease
from leasehold.runs.roster import Roster
from leasehold.runs.supervise import Supervisor
from leasehold.settings import Settings

log = structlog.get_logger()

TRIES = 5
"""Lives that are over before they have begun (a suspended host, a database away in that very moment), in a row."""


def host_id() -> str:
    """What this host is called for ever: its machine id, never its name."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.exists() and (text := path.read_text().strip()):
            return text
    return "boot-" + boot_id()


def boot_id() -> str:
    """Which boot of the host this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Lives:
    """Begins this daemon's lives (one, unless a lease is lost) and starts the runs of the present one."""

    def __init__(
        self, settings: Settings, db: Database, keeper: Keeper, lease: Lease, roster: Roster,
        supervisor: Supervisor, runs: TaskGroup, listener: Listener, controls: Bell,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._db = db
        self._keeper = keeper
        self._lease = lease
        self._roster = roster
        self._supervisor = supervisor
        self._runs = runs
        self._listener = listener
        self._controls = controls
        self._late = supervisor.late

    async def begin(self) -> None:
        """Begin a life; anew, should its lease run out before it has begun."""
        for _ in range(TRIES):
            try:
                return await self._begin()
            except WorkerClosed as error:
                log.warning("lease_lost", error=str(error), decided="register as a new worker")
                await sleep(1)
        return await self._begin()

    async def _begin(self) -> None:
        """Register, adopt, and only after that commit move deadlines, of the returned runs alone (rules 7 and 8)."""
        kept = await self._kept()
        worker = await self._register()
        read_at = boottime()
        keys = [each.key for each in kept.values() if each.key is not None]
        answers = await self._db.adopt(worker, keys, self._settings.lease)
        self._lease.begin(worker, read_at)
        ours = [key.id for what, key in answers if what == "adopted"]
        await self._extend([run for run in ours if kept[run].exit is None])
        await self._take(ours, kept)
        strangers = [each for run, each in kept.items() if run not in ours]
        for stranger in strangers:
            self._runs.start_soon(self._late.settle_stranger, stranger)
        ended = sum(what == "ended" for what, _ in answers)
        log.info("runs_adopted", adopted=len(ours), ended_meanwhile=ended, strangers=len(strangers))
        self._listener.hear(f"leasehold_worker_{worker.id}", self._controls)

    async def begin_again(self) -> None:
        """The lease was lost: when the last run here is gone, begin a new life."""
        await self._roster.empty.wait()  # bounded: the keeper kills what has no lease
        await self._db.patiently(self.begin)

    async def start(self, runs: Sequence[int]) -> None:
        """Start what was just claimed."""
        held = self._roster.held
        try:
            for run in await self._db.patiently(self._db.read_runs, self._lease.worker, runs):
                log.info("run_claimed", job_id=run.job_id, run_id=run.id, attempt=run.attempt, agent=run.agent,
                         tenant=run.tenant, worker=self._lease.worker.id)  # fmt: skip
                self._runs.start_soon(self._supervisor.supervise, run, held.pop(run.id))
        finally:
            for run_id in runs:  # ended before it could be read, or it could not be read in time: give the place back
                if run_id in held:
                    with self._roster.place(held[run_id]):
                        log.warning("run_lost", run_id=run_id, error="not started")

    async def take_up(self, runs: Sequence[int]) -> None:
        """Runs that are ours in the database and unknown here: a claim whose answer was lost (rule 10)."""
        try:
            kept = await self._ask_kept()
        except KeeperAway:  # the next renewal names them again; renewals wait for no keeper (rule 15)
            return
        log.warning(
            "runs_taken_up", runs=list(runs), why="the database says they are ours; an answer must have been lost"
        )
        await self._take(list(runs), kept)

    async def _kept(self) -> dict[int, KeptRun]:
        while True:
            try:
                return await self._ask_kept()
            except KeeperAway:
                await sleep(0.5)

    async def _ask_kept(self) -> dict[int, KeptRun]:
        return {each.run_id: each for each in await self._keeper.kept()}

    async def _register(self) -> Worker:
        settings, queues = self._settings, self._settings.queues
        worker = await self._db.register_worker(
            settings.instance, host_id(), boot_id(), self._keeper.identity, __version__, settings.max_runs,
            list(queues) if queues is not None else None, settings.lease,
        )  # fmt: skip
        log.info(
            "worker_registered", worker=worker.id, instance=settings.instance, lease=settings.lease.total_seconds()
        )
        return worker

    async def _extend(self, runs: list[int]) -> None:
        try:
            await self._keeper.extend(runs, self._lease.proved)
        except KeeperAway as error:  # the next renewal names them and extends again
            log.warning("extend_failed", runs=len(runs), error=str(error))

    async def _take(self, runs: list[int], kept: dict[int, KeptRun]) -> None:
        for run in await self._db.patiently(self._db.read_runs, self._lease.worker, runs) if runs else []:
            held = self._roster.admit(run.key, run.job_id, run.attempt, self._lease.proved)
            log.info("run_adopted", job_id=run.job_id, run_id=run.id, attempt=run.attempt, agent=run.agent,
                     tenant=run.tenant, state=kept[run.id].state if run.id in kept else "never spawned")  # fmt: skip
            found = kept.get(run.id)
            self._runs.start_soon(
                self._supervisor.supervise, run, held, found if found and found.is_of(run.key) else None
            )
