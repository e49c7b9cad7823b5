"""Keep what is ours, and notice when it no longer is. If it fails, the daemon fails."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from anyio import sleep

from leasehold import metrics
from leasehold.bell import Bell
from leasehold.db.away import AWAY, words
from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, KeeperRefused, WorkerClosed
from leasehold.loops import jittered
from leasehold.models import Worker, boottime
from leasehold.processes.keeper import Keeper
from leasehold.runs.pulse import Pulse
from leasehold.runs.roster import Held, Roster
from leasehold.settings import Settings

log = structlog.get_logger()

STOPS = {"lost": "lost", "cancel": "cancelled", "budget": "budget"}
"""What a renewal's answer says of a run, and why it is stopped then."""

TakeUp = Callable[[Sequence[int]], Awaitable[None]]
BeginAgain = Callable[[], Awaitable[None]]


class Lease:
    """Who we are to the database, and until when (CLOCK_BOOTTIME) that is proved."""

    def __init__(self, settings: Settings) -> None:
        self._span = (settings.lease - settings.margin).total_seconds()
        self._worker: Worker | None = None
        self.proved = 0.0
        self.steady_since: float | None = None

    @property
    def worker(self) -> Worker:
        """This life. There is one once `begin` was called."""
        assert self._worker is not None
        return self._worker

    def begin(self, worker: Worker, read_at: float) -> None:
        """A new life, registered by a statement sent after the clock was read as `read_at` (rule 4)."""
        self._worker = worker
        self.renewed(read_at)

    def renewed(self, read_at: float) -> float:
        """A renewal sent after `read_at` was answered; the deadline that it proves."""
        self.proved = read_at + self._span
        if self.steady_since is None:
            self.steady_since = read_at
        return self.proved

    def doubted(self) -> None:
        """A renewal failed: whatever we believe of other workers is stale too (rule 23)."""
        self.steady_since = None


class LeaseKeeper:
    """Renews all runs in one statement, and does what the answer says."""

    def __init__(
        self, settings: Settings, db: Database, lease: Lease, roster: Roster, keeper: Keeper, pulse: Pulse
    ) -> None:
        self._settings = settings
        self._db = db
        self._lease = lease
        self._roster = roster
        self._keeper = keeper
        self._pulse = pulse
        self._proved_more = Bell()

    async def keep_forever(self, controls: Bell, take_up: TakeUp, begin_again: BeginAgain) -> None:
        """Renew every `renewal`, and at once when a control is pending."""
        while True:
            await controls.wait(at_most=jittered(self._settings.renewal.total_seconds() * 0.9))
            try:
                unnamed = await self.renew()
                if unnamed:
                    await take_up(unnamed)
            except WorkerClosed as error:
                log.error("lease_lost", error=words(error), decided="stop all runs here, then register as a new worker")
                self._roster.stop_all("lost")
                await begin_again()
            except AWAY as error:
                left = round(self._lease.proved - boottime(), 1)
                log.warning("renewal_failed", error=words(error), agents_die_in_seconds=left)
                self._lease.doubted()
                await sleep(jittered(min(1.0, self._settings.renewal.total_seconds() / 5)))
                controls.ring()  # not after a whole interval: the lease is running out
            self._pulse.beat("lease")

    async def renew(self) -> list[int]:
        """One renewal; the runs that are ours in the database and unknown here (rules 10 and 11)."""
        quiet = self._roster.claims_in_flight == 0
        named = self._roster.held
        read_at = boottime()
        with metrics.RENEWAL_SECONDS.time():
            answers = await self._db.renew(self._lease.worker, list(named), self._settings.lease)
        deadline = self._lease.renewed(read_at)
        lost = {run for what, run, _ in answers if what == "lost" and run is not None}
        for what, run, _detail in answers:
            if run in named and what in STOPS:
                self._stop(named[run], STOPS[what])
            elif run in named and what == "input":
                named[run].inputs.ring()
        for run, held in named.items():
            if run not in lost:  # only runs whose renewal was answered by name move, and only they (rule 2)
                held.deadline = max(held.deadline, deadline)
        self._proved_more.ring()
        if not quiet or self._roster.claims_in_flight:
            return []
        here = self._roster.held
        return [run for what, run, _ in answers if what == "unnamed" and run is not None and run not in here]

    def _stop(self, held: Held, why: str) -> None:
        if held.ended:  # its outcome is on the way, or arrived while the renewal was: nothing to stop
            return
        if held.stop(why) and why == "lost":
            log.warning("run_lost", run_id=held.key.id, job_id=held.job_id, attempt=held.attempt)

    async def extend_forever(self) -> None:
        """Tell the keeper what renewals have proved. A task of its own: a keeper that hangs must not stop the renewals."""
        while True:
            await self._proved_more.wait(at_most=self._settings.lease.total_seconds())
            held = [each for each in self._roster.held.values() if each.deadline > each.told]
            for deadline in {each.deadline for each in held}:
                await self._extend([each for each in held if each.deadline == deadline], deadline)

    async def _extend(self, runs: list[Held], deadline: float) -> None:
        try:
            await self._keeper.extend([held.key.id for held in runs], deadline)
        except (KeeperAway, KeeperRefused) as error:
            log.warning("extend_failed", runs=len(runs), error=str(error))
            return
        for held in runs:
            held.told = max(held.told, deadline)
