"""What a live agent is told: what its adapter owes it, what somebody wants of it, the end of its input. If it fails, one run fails.

Nothing of it is remembered here. A fold that is replayed owes the same again, the database names again what was wanted, and the
keeper, which lives as long as the agent may, takes each key once: so whoever dies in between, nothing is lost or said twice.
"""

from collections.abc import Sequence

import structlog
from anyio import sleep

from leasehold.agents.base import Conversing
from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, KeeperRefused, RunRefused, WorkerClosed
from leasehold.events.recorder import Recorder
from leasehold.models import Control, Input, Run, boottime
from leasehold.processes.keeper import Keeper
from leasehold.runs.lease import Lease
from leasehold.runs.roster import Held, Roster

log = structlog.get_logger()

RETRY = 0.5
"""Seconds until the keeper, or an agent that does not read, is tried again."""
LOOK = 60.0
"""Seconds after which we look again although nobody rang."""
VAIN = 5.0
"""Seconds for an agent to take back what nobody could be asked, before it is stopped for waiting in vain."""
LAST_TRIES = 10
"""Questions to a keeper that is away about a run that has ended; then what it was told stays unsaid."""
DEAF = ("closed", "unknown_run", "no_fifo")
"""What the keeper says of an agent that cannot be told anything any more; how it ends is up to the agent, and to the clocks."""


class Talk:
    """One run's. The adapter is touched only under `recorder.folding`, and only when it has heard all that was said before."""

    def __init__(
        self, run: Run, held: Held, adapter: Conversing, recorder: Recorder, db: Database, keeper: Keeper, lease: Lease,
        roster: Roster,
    ) -> None:  # fmt: skip
        self._run = run
        self._held = held
        self._adapter = adapter
        self._recorder = recorder
        self._db = db
        self._keeper = keeper
        self._lease = lease
        self._roster = roster
        self._open = True
        self._over = False
        self._asked = False  # known: what an earlier life was asked; an agent that seems done may be at work on more
        self._closed = False
        self._vain_since: float | None = None
        self._told: set[str] = set()  # keys that we have told, and the adapter knows it
        self._had: set[str] = set()  # keys that the keeper has, whoever told them
        self._read: set[str] = set()  # keys of the controls that we know of
        self._unsent: list[Control] = []  # the adapter does not know of them yet
        self._untaken: dict[str, Control] = {}  # the database does not know that the agent has them

    def still(self) -> bool:
        """Is it not the agent's time that passes? It waits for a human, or we do not know yet what it is at."""
        return self._open and (not self._recorder.caught_up or not self._asked or self._waits())

    async def tell_forever(self) -> None:
        """Tell what there is to tell, whenever the agent has said something or somebody wants something of it."""
        while self._open:
            pause = LOOK
            try:
                await self._tell()
            except KeeperAway:
                pause = RETRY
            except KeeperRefused as error:
                pause = RETRY
                self._open = self._can_be_told(error)
            await self._recorder.looked.wait(at_most=min(pause, self._look_in_vain()))
        self._roster.rest(self._held, resting=False)

    async def attend_forever(self) -> None:
        """Hear what is wanted of this run, at first all that ever was; say what the agent has of it."""
        again = True
        try:
            while True:
                await self._hear(again=again)
                if not self._asked:
                    self._asked = True
                    self._recorder.looked.ring()
                if again:
                    await self._ask_keeper(LAST_TRIES)
                again = False
                await self._acknowledge()
                while not await self._held.inputs.wait(
                    at_most=LOOK
                ):  # renewals ring for as long as something is pending
                    pass
        except (RunRefused, WorkerClosed) as error:  # whoever settles it says so
            log.debug("run_refused", error=str(error), about="read_inputs")

    async def end(self) -> None:
        """The tree is gone: say what the agent had, before the rest is taken for unheard."""
        try:
            await self._hear(again=False)
            await self._ask_keeper(LAST_TRIES)
            await self._acknowledge()
        except (RunRefused, WorkerClosed) as error:  # whoever settles it says so
            log.debug("run_refused", error=str(error), about="take_inputs")

    async def _tell(self) -> None:
        while (owed := await self._next()) is not None:
            await self._keeper.feed(self._run.id, owed.key, owed.raw)
            await self._took(owed.key)
        if self._over and not self._closed:
            await self._keeper.close_stdin(self._run.id)
            self._closed = True

    async def _next(self) -> Input | None:
        """What comes next, as things stand now."""
        async with self._recorder.folding:
            if not self._recorder.caught_up:
                return None
            if self._adapter.ready:
                for control in self._unsent:
                    self._adapter.send(control)
                self._unsent.clear()
            self._roster.rest(self._held, resting=self._waits() and self._run.while_waiting == "release")
            owed = next((each for each in self._adapter.owed if each.key not in self._told), None)
            self._over = owed is None and self._asked and self._adapter.over
            return owed

    def _waits(self) -> bool:
        """For a human who knows of it."""
        return self._adapter.waiting and not self._recorder.unasked

    def _look_in_vain(self) -> float:
        """Stop it if it waits for what nobody was asked, for nobody will answer that; in so many seconds it is to be looked at again."""
        if not (self._adapter.waiting and self._recorder.unasked and self._recorder.caught_up):
            self._vain_since = None
            return LOOK
        now = boottime()
        self._vain_since = now if self._vain_since is None else self._vain_since
        if now - self._vain_since >= VAIN:
            self._held.stop("unasked")
            return LOOK
        return self._vain_since + VAIN - now

    async def _took(self, key: str) -> None:
        self._told.add(key)
        self._had.add(key)
        async with self._recorder.folding:
            self._adapter.taken(key)
        if key in self._untaken:
            self._held.inputs.ring()

    def _can_be_told(self, error: KeeperRefused) -> bool:
        if error.code == "full":  # until it reads, or one of its clocks strikes
            return True
        if error.code in DEAF:
            log.info("run_deaf", why=error.code, error=str(error))
        else:
            log.error("run_unheard", why=error.code, error=str(error), decided="stop it")
            self._held.stop("unheard")
        return False

    async def _hear(self, *, again: bool) -> None:
        found = await self._db.patiently(self._db.read_inputs, self._lease.worker, [self._run.id], again=again)
        fresh = [control for _, control in found if control.key not in self._read]
        self._read |= {control.key for control in fresh}
        self._untaken |= {control.key: control for control in fresh}
        if fresh:
            self._unsent += fresh
            self._recorder.looked.ring()

    async def _ask_keeper(self, tries: int) -> None:
        """What did an earlier life tell, that the adapter need not owe any more?"""
        unsure: Sequence[str] = [key for key in self._untaken if key not in self._had]
        for _ in range(tries):
            try:
                self._had |= await self._keeper.inputs(self._run.id, unsure)
                return
            except KeeperAway:
                await sleep(RETRY)
            except KeeperRefused:  # it has nothing of this run
                return

    async def _acknowledge(self) -> None:
        """A control counts as taken when the keeper has its key, not before."""
        had = [control for key, control in self._untaken.items() if key in self._had]
        if had:
            await self._db.patiently(
                self._db.take_inputs, self._lease.worker, [(self._run.id, control) for control in had]
            )
        for control in had:
            del self._untaken[control.key]
