"""Keep the connection to the keeper: greet, notice loss, greet again, and stand in for a keeper that is away.

If another daemon takes the keeper over, this daemon ends.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from anyio import Event, move_on_after, sleep, to_thread

from leasehold import sdnotify
from leasehold.errors import KeeperAway, KeeperMismatch, KeeperRefused, KeeperSuperseded
from leasehold.loops import background
from leasehold.models import boottime
from leasehold.processes.keeper import Keeper
from leasehold.processes.last_resort import kill_tree
from leasehold.processes.launch import launch_keeper
from leasehold.processes.record import parse_exit
from leasehold.processes.wire import Wire, dial

log = structlog.get_logger()

PROTOCOL = 2
"""The keeper's, of our own release; a keeper of another one is refused."""
RESTART = "restart the keeper with this release, which ends the agents that it owns"
CLOCKS_APART = 5.0
"""Seconds by which two readings of CLOCK_BOOTTIME in one host may differ; more is another world (rule 26)."""
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PATIENCE = 15.0
"""Seconds at start for a keeper to answer."""
LAUNCH = 3.0
"""Seconds a keeper that we started has to come up before another one is started."""
GUARD = 0.25
"""Seconds between two looks for trees that the keeper should have ended."""
PROBE = 10.0
"""Seconds between two questions to a silent keeper: one that hangs must be noticed long before a deadline."""


class Link:
    """Greets the keeper, and remembers the greeting: a keeper that has met a newer daemon refuses an older one."""

    def __init__(self, state_dir: Path, socket: Path, instance: str, *, start_if_missing: bool) -> None:
        self._state_dir = state_dir
        self._socket = socket
        self._instance = instance
        self._start_if_missing = start_if_missing
        self._me = uuid4().hex
        self._life: str | None = None
        self._epoch: int | None = None
        self._superseded = False
        self._awaited = False
        self._keeper: Keeper | None = None
        self._launched_at = float("-inf")
        self.ready = Event()

    @property
    def keeper(self) -> Keeper:
        """The keeper, once it has answered."""
        assert self._keeper is not None
        return self._keeper

    async def keep_forever(self, on_back: Callable[[], None]) -> None:
        """Connect, serve the connection, say when it is lost; stand in until it is back."""
        failures, lost_at = 0, None
        while True:
            try:
                async with self._greeted() as wire:
                    if lost_at is not None:
                        await self.keeper.recollect()
                        log.info("keeper_back", seconds=round(boottime() - lost_at, 1), containment=self.keeper.rung)
                        on_back()
                    else:
                        log.info("keeper_ready", containment=self.keeper.rung)
                    failures, lost_at = 0, None
                    self.ready.set()
                    await self._until_lost(wire)
            except KeeperAway as error:
                lost_at = self._lost(lost_at, error)
                failures += 1
            if self._superseded:
                log.error("keeper_superseded", decided="leave: another daemon owns the agents now")
                raise KeeperSuperseded
            await self._meanwhile(PAUSES[min(failures, len(PAUSES)) - 1])

    def _lost(self, lost_at: float | None, error: KeeperAway) -> float | None:
        if self._keeper is None:  # it has not come up yet
            sdnotify.status("waiting for the keeper")
            if not self._awaited and not self._start_if_missing:
                log.warning("keeper_awaited", error=str(error), socket=str(self._socket))
            self._awaited = True
            return None
        self.keeper.connected = False
        if lost_at is None:
            log.warning("keeper_lost", error=str(error), decided="claim nothing, kill overdue trees ourselves")
        return lost_at or boottime()

    async def _meanwhile(self, pause: float) -> None:
        """While it is away: start another if that is our part."""
        due = boottime() - self._launched_at > LAUNCH  # the last one may still be coming up
        if self._start_if_missing and due and not await self._answers():
            self._launched_at = boottime()
            await launch_keeper(self._state_dir, self._socket)
        await sleep(pause)

    async def stand_in(self) -> None:
        """Kill what its deadline catches while the keeper is away or hangs (rule 15). Never waits for the keeper."""
        while True:
            await sleep(GUARD)
            for run in self.keeper.overdue(boottime()) if self._keeper is not None else []:
                if self.keeper.condemn(run):
                    log.error(
                        "last_resort_kill", run_id=run.run_id, pid=run.pid, why="no keeper, and its deadline is near"
                    )
                gone = await to_thread.run_sync(
                    kill_tree, run.run_id, self.keeper.identity, run.pid, run.start_time, run.cgroup
                )
                self.keeper.killed(run, gone=gone)

    async def _answers(self) -> bool:
        try:
            async with dial(self._socket, lambda _: None):
                return True
        except KeeperAway:
            return False

    @asynccontextmanager
    async def _greeted(self) -> AsyncIterator[Wire]:
        async with dial(self._socket, self._hear) as wire:
            sent = boottime()
            try:
                said = await wire.ask(
                    "hello",
                    protocol=PROTOCOL,
                    instance=self._instance,
                    daemon=self._me,
                    life=self._life,
                    epoch=self._epoch,
                )
            except KeeperRefused as error:
                self._superseded = error.code == "superseded"
                raise (KeeperAway(str(error)) if self._superseded else _mismatch(error)) from error
            _same_world(said, sent)
            if self._keeper is None:
                self._keeper = Keeper(said["keeper_id"])
            elif self._keeper.identity != said["keeper_id"]:
                raise KeeperMismatch("another keeper answers at this socket than before")
            self._life, self._epoch = said["life"], said["epoch"]
            self._keeper.connect(wire, said)
            yield wire

    async def _until_lost(self, wire: Wire) -> None:
        while not wire.closed.is_set():
            with move_on_after(PROBE):
                await wire.closed.wait()
            if not wire.closed.is_set():
                await wire.ask("about")
        raise KeeperAway("the keeper closed the connection")

    def _hear(self, push: dict[str, Any]) -> None:
        if push.get("event") == "superseded":
            self._superseded = True
        elif push.get("event") == "exited" and self._keeper is not None:
            self._keeper.hear_exit(parse_exit(push["exit"], push["run_id"]))
        elif push.get("event") == "unkillable" and self._keeper is not None:
            self._keeper.hear_unkillable(push["run_id"], push["processes"])


def wrong_protocol(said: Mapping[str, Any]) -> str | None:
    """What is wrong with a keeper that says this `about` itself; None: we understand each other."""
    theirs = said.get("protocol", 1)  # the first one did not say
    if theirs == PROTOCOL:
        return None
    return f"it speaks protocol {theirs}, this program needs {PROTOCOL}: {RESTART}"


def _mismatch(error: KeeperRefused) -> KeeperMismatch:
    return KeeperMismatch(f"{error}: {RESTART}" if error.code == "protocol" else str(error))


def _same_world(said: dict[str, Any], sent: float) -> None:
    if said["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        raise KeeperMismatch("the keeper runs under another boot of the kernel")
    if not sent - CLOCKS_APART <= said["boottime"] <= boottime() + CLOCKS_APART:
        raise KeeperMismatch("the keeper's CLOCK_BOOTTIME is not ours: another time namespace?")


@asynccontextmanager
async def open_keeper(
    state_dir: Path, socket: Path, instance: str, *, start_if_missing: bool, on_back: Callable[[], None]
) -> AsyncIterator[Keeper]:
    """The keeper, greeted, with its link kept beside the block. Raises KeeperAway, KeeperMismatch, KeeperSuperseded."""
    link = Link(state_dir, socket, instance, start_if_missing=start_if_missing)
    async with background() as group:
        group.start_soon(link.keep_forever, on_back)
        group.start_soon(link.stand_in)
        with move_on_after(PATIENCE):
            await link.ready.wait()
        if not link.ready.is_set():
            raise KeeperAway(f"no keeper answers at {socket}")
        yield link.keeper


async def ask_keeper(socket: Path) -> dict[str, Any]:
    """What a keeper says of itself, without taking it over from its daemon. Raises KeeperAway."""
    async with dial(socket, lambda _: None) as wire:
        return await wire.ask("about")
