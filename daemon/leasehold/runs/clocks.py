"""The clocks of one run, each with its own reason (X25). If it fails, one run is stopped as a mistake of ours."""

import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from anyio import sleep

from leasehold.agents.base import Adapter
from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.events.brake import Watched
from leasehold.models import Run, boottime
from leasehold.processes.keeper import Keeper, Look
from leasehold.runs.roster import Held
from leasehold.runs.staging import Staging

log = structlog.get_logger()

SUSPECT_AT = 0.75
"""Share of a silence after which the run is called suspect; the rest is the time to see whether it works."""
PATIENCE_WITH_BUSY = 4
"""A silent tree that computes may be silent this many times as long: builds and tests can be quiet."""
BUSY_CPU = 0.05
"""Cores a working tree uses; a program that only waits uses less."""
BUSY_IO = 1024.0
"""Bytes per second a working tree reads and writes."""
LOOKS = 20
"""Looks at each clock before it strikes."""

Suspect = Callable[[str, Mapping[str, Any]], Awaitable[object]]
Still = Callable[[], bool]
"""Is it somebody else's time that passes? Then every clock stands still."""


def never() -> bool:
    """Of an agent that waits for nobody."""
    return False


class Silence:
    """For how long has it written nothing, not one raw byte, and does it work meanwhile? Pure: told what was seen."""

    def __init__(self, since: float) -> None:
        self.size = 0
        self.since = since
        self.suspected: tuple[float, Look] | None = None

    def heard(self, size: int, now: float) -> None:
        """Any raw byte breaks it."""
        if size != self.size:
            self.size = size
            self.begin_anew(now)

    def begin_anew(self, now: float) -> None:
        """This silence does not count."""
        self.since, self.suspected = now, None

    def suspects(self, limit: float, now: float) -> bool:
        """Is it time to look at the tree for the first time?"""
        return self.suspected is None and now - self.since >= limit * SUSPECT_AT

    def strikes(self, limit: float, now: float) -> bool:
        """Has the clock run out, whatever the tree does?"""
        return self.suspected is not None and now - self.since >= limit

    def works(self, look: Look, limit: float, now: float) -> bool:
        """Did the tree compute, read or write since it was last looked at? It is given more time then, but not for ever."""
        assert self.suspected is not None
        at, before = self.suspected
        elapsed = max(now - at, 0.001)
        cpu = (look.cpu_seconds - before.cpu_seconds) / elapsed
        io = (look.io_bytes - before.io_bytes) / elapsed
        return (cpu >= BUSY_CPU or io >= BUSY_IO) and now - self.since < limit * PATIENCE_WITH_BUSY

    def look_again(self, look: Look, limit: float, now: float) -> None:
        """Judge its work afresh, over as long a time as the first."""
        assert self.suspected is not None
        if now - self.suspected[0] >= limit * (1 - SUSPECT_AT):
            self.suspected = now, look


class Clocks:
    """Watches one living tree. Stops it through `held`, so that the first reason stands."""

    def __init__(
        self,
        run: Run,
        held: Held,
        keeper: Keeper,
        adapter: Adapter,
        directory: Path,
        watched: Watched,
        suspect: Suspect,
        still: Still,
        staging: Staging,
    ) -> None:
        self._run = run
        self._held = held
        self._keeper = keeper
        self._adapter = adapter
        self._files = directory / "stdout", directory / "stderr"
        self._watched = watched
        self._suspect = suspect
        self._still = still
        self._staging = staging
        self._began = 0.0
        self._done_at: float | None = None

    async def watch(self, start_time: int | None) -> None:
        """Look at every clock that is set, often enough for the shortest; `start_time` is the process's, in ticks."""
        now = boottime()
        self._began = start_time / os.sysconf("SC_CLK_TCK") if start_time else now
        self._began += self._run.waited.total_seconds()  # for humans, in an earlier life
        silence = Silence(now)
        while True:
            before, now = now, boottime()
            stage = self._staging.look(now)
            size = sum(_size(path) for path in self._files)
            silence.heard(max(0, size - stage.said), now)
            still = self._still()
            if still:
                self._stand_still(now - before)
            if (
                still or self._watched.held or self._staging.busy
            ):  # a human or we keep it from speaking, or it is not there
                silence.begin_anew(now)
            try:
                await self._look(silence, now)
            except (KeeperAway, KeeperRefused):  # nobody could stop it now anyway
                pass
            await sleep(self._pause())

    def _stand_still(self, seconds: float) -> None:
        """So much of its life does not count."""
        self._began += seconds
        if self._done_at is not None:
            self._done_at += seconds

    async def _look(self, silence: Silence, now: float) -> None:
        run = self._run
        if run.total_timeout is not None and now - self._began >= run.total_timeout.total_seconds():
            self._held.stop("total")
        if (late := self._staging.late(self._began, now)) is not None:
            self._held.stop(late)
        if self._staging.busy:  # making ready and tidying up have clocks of their own
            return
        if not self._adapter.done:  # who converses may be asked for more
            self._done_at = None
        elif self._done_at is None:
            self._done_at = now
        if self._done_at is not None and now - self._done_at >= run.linger_timeout.total_seconds():
            self._held.stop("linger")
        clock, limit = self._silence_clock(silence)
        if limit is not None:
            await self._silent(silence, clock, limit.total_seconds(), now)

    def _silence_clock(self, silence: Silence) -> tuple[str, timedelta | None]:
        run = self._run
        if silence.size == 0 and run.first_output_timeout is not None:
            silence.since = min(silence.since, self._staging.seen.agent_at or self._began)
            return "first_output", run.first_output_timeout
        if self._adapter.in_tool and run.tool_idle_timeout is not None:
            return "idle", run.tool_idle_timeout
        return "idle", run.idle_timeout

    async def _silent(self, silence: Silence, clock: str, limit: float, now: float) -> None:
        if silence.suspects(limit, now):
            look = await self._keeper.look(self._run.id)
            silence.suspected = (now, look)
            facts = {"clock": clock, "silent_seconds": round(now - silence.since, 1), "limit_seconds": limit}
            log.warning("run_suspect", **facts, processes=len(look.processes))
            await self._suspect(
                clock, {**facts, "cpu_seconds": look.cpu_seconds, "io_bytes": look.io_bytes, "tree": look.tree}
            )
        elif silence.strikes(limit, now):
            look = await self._keeper.look(self._run.id)
            if silence.works(look, limit, now):
                silence.look_again(look, limit, now)
            else:
                self._held.stop(clock)

    def _pause(self) -> float:
        run = self._run
        clocks = (
            run.total_timeout,
            run.idle_timeout,
            run.tool_idle_timeout,
            run.first_output_timeout,
            run.linger_timeout,
        )
        shortest = min(clock.total_seconds() for clock in clocks if clock is not None)
        return min(5.0, max(0.05, shortest / LOOKS))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
