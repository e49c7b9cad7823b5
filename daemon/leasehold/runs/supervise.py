"""The life of one run, from claim to settlement, top to bottom. If it fails, one run fails."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from anyio import Event, create_task_group, move_on_after, sleep
from structlog.contextvars import bound_contextvars

from leasehold.agents.base import Adapter, Conversing
from leasehold.agents.command import CommandAdapter
from leasehold.agents.registry import ADAPTERS, adapter_for
from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, RunRefused, WorkerClosed
from leasehold.events.brake import Brake, Watched
from leasehold.events.recorder import Recorder
from leasehold.events.shipper import Shipper
from leasehold.loops import background
from leasehold.models import Exit, Run, boottime
from leasehold.processes.keeper import Keeper, KeptRun, Spawn
from leasehold.runs.clocks import Clocks, never
from leasehold.runs.converse import Talk
from leasehold.runs.ending import Ender
from leasehold.runs.judge import held_to, judge
from leasehold.runs.late import LateSettler
from leasehold.runs.lease import Lease
from leasehold.runs.roster import Held, Roster
from leasehold.runs.settle import Settler
from leasehold.runs.staging import Stages, Staging
from leasehold.settings import Settings

log = structlog.get_logger()

OLDER = "the keeper of this host is of an earlier release and cannot speak to an agent: restart it when no agent runs under it"
QUICK, SLOW = 0.02, 0.4
"""Seconds between two looks at a run's files: while it speaks, and while it is silent."""


class Supervisor:
    """Sees runs through: spawn, follow, obey, sweep, flush, settle."""

    def __init__(
        self, settings: Settings, db: Database, keeper: Keeper, lease: Lease, roster: Roster, shipper: Shipper,
        brake: Brake,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._db = db
        self._keeper = keeper
        self._lease = lease
        self._roster = roster
        self._shipper = shipper
        self._brake = brake
        self._settler = Settler(db, keeper, lease)
        self.late = LateSettler(db, keeper, lease, self._settler, shipper.readers, settings.state_dir / "runs")
        self._ender = Ender(settings, db, keeper, lease, roster)
        self._stages = Stages(settings, db, lease)

    async def supervise(self, run: Run, held: Held, kept: KeptRun | None = None) -> None:
        """See `run` through; `kept` is what the keeper has of it when it was taken up again."""
        with (
            bound_contextvars(
                job_id=run.job_id, run_id=run.id, attempt=run.attempt, agent=run.agent, tenant=run.tenant,
                worker=self._lease.worker.id,
            ),
            self._roster.place(held),
        ):  # fmt: skip
            try:
                await self._see_through(run, held, kept)
            except (RunRefused, WorkerClosed) as error:
                log.warning("run_refused", error=str(error), run_directory="kept")
            except Exception:  # one run's accident must not become everybody's: end it, say so, go on
                log.exception("run_crashed")
                try:
                    await self._abandon(run, held)
                except Exception:
                    log.exception("run_crashed", run_directory="kept")
            finally:
                self._shipper.forget(run.key)

    async def _see_through(self, run: Run, held: Held, kept: KeptRun | None) -> None:
        adapter = adapter_for(run)
        if run.session_evicted and kept is None:
            ending = Exit(run.id, str(run.key.token), "never_started", "session_evicted")
            await self._settler.settle(run.key, ending, judge(ending, adapter), {})
            return
        staging = await self._stages.take(run)
        run = staging.run
        adapter = adapter_for(
            replace(run, workspace=staging.place.path)
        )  # some tell their agent where it is, in any life of ours
        if staging.place.verdict is not None and kept is None:
            never = Exit(run.id, str(run.key.token), "never_started", "exit")
            await self._settler.settle(run.key, never, staging.place.verdict, {})
            return
        if run.cancel_requested:
            held.stop("cancelled")
        with (
            Recorder(run, adapter, self._shipper, self._keeper, self._directory(run)) as recorder,
            self._brake.watching(run, recorder.tails, held=kept is not None and kept.held) as watched,
        ):
            talk = self._talk(run, held, adapter, recorder)
            ending = await self._live(run, held, kept, adapter, recorder, watched, talk, staging)
            output = await recorder.end()
            lost = held.why == "lost" or run.id in self._shipper.refused
            if talk is not None and not lost:
                await talk.end()
        log.info("run_exited", why=ending.why, exit_code=ending.exit_code, signal=ending.signal, swept=ending.swept)
        verdict = staging.judged(ending) or judge(held_to(run.output_limit, ending), adapter)
        if lost:  # the database may have given it up, and stopped listening before everything was said
            await self.late.settle(run.key, ending, verdict, output)
        else:
            await self._stages.report(run, staging)
            await self._settler.settle(run.key, ending, verdict, output)

    async def _live(
        self, run: Run, held: Held, kept: KeptRun | None, adapter: Adapter, recorder: Recorder, watched: Watched,
        talk: Talk | None, staging: Staging,
    ) -> Exit:  # fmt: skip
        """From spawn to exit record; the recorder follows meanwhile, the stop waits beside."""
        ended = Event()
        async with create_task_group() as group:
            async with background() as beside:
                beside.start_soon(self._ender.obey, run, held)
                kept = kept or await self._spawn(run, held, adapter, staging)
                held.spawned = True
                group.start_soon(_follow, recorder, ended)
                beside.start_soon(_cap, watched, held)
                if kept.exit is None:
                    clocks = Clocks(
                        run,
                        held,
                        self._keeper,
                        adapter,
                        self._directory(run),
                        watched,
                        partial(self._ender.suspect, run),
                        talk.still if talk is not None else never,
                        staging,
                    )
                    beside.start_soon(clocks.watch, kept.start_time)
                    beside.start_soon(self._ender.watch_unkillable, run, held)
                    beside.start_soon(self._stages.announce, run, staging)
                    if talk is not None:
                        beside.start_soon(talk.tell_forever)
                        beside.start_soon(talk.attend_forever)
                    await self._announce(run, held, kept)
                ending = await self._keeper.exited(run.id)
            held.ended = True
            ended.set()
        return ending

    async def _spawn(self, run: Run, held: Held, adapter: Adapter, staging: Staging) -> KeptRun:
        """Ask the keeper, for as long as it takes it to answer; it starts a run id at most once."""
        place = staging.place
        command = place.dressed(adapter.launch(run, place.path), self._directory(run))
        late_at = boottime() + run.spawn_timeout.total_seconds()
        if command.converses and not self._keeper.feeds:
            return self._refuse(run)
        while True:
            spec = Spawn(
                run_id=run.id, token=str(run.key.token), argv=command.argv, env=command.env, cwd=place.cwd,
                stdin=command.stdin, deadline=held.deadline, grace=self._ender.grace(run), limits=run.limits,
                converses=command.converses,
            )  # fmt: skip
            try:
                kept = await self._keeper.spawn(spec)
            except KeeperAway:
                if boottime() >= late_at:
                    held.stop("spawn")  # the keeper hears of the stop first, so a later spawn starts nothing
                await sleep(0.5)
                continue
            if not kept.is_of(run.key):
                await self.late.make_room(kept)
                continue
            if kept.exit is None:
                log.info("run_spawned", pid=kept.pid, containment=self._keeper.containment.get("rung"))
            return kept

    def _refuse(self, run: Run) -> KeptRun:
        """Not started: nobody could speak to it."""
        log.error("keeper_older", decided="do not start what has to be spoken to")
        error = {"kind": "keeper_older", "message": OLDER}
        ending = Exit(run.id, str(run.key.token), "never_started", "exit", error=error)
        self._keeper.hear_exit(ending)
        return KeptRun(run.id, str(run.key.token), "exited", exit=ending)

    def _talk(self, run: Run, held: Held, adapter: Adapter, recorder: Recorder) -> Talk | None:
        if not isinstance(adapter, Conversing):
            return None
        return Talk(run, held, adapter, recorder, self._db, self._keeper, self._lease, self._roster)

    async def _announce(self, run: Run, held: Held, kept: KeptRun) -> None:
        identity: dict[str, Any] = {
            "pid": kept.pid,
            "start_time": kept.start_time,
            "cgroup": kept.cgroup,
            "containment": self._keeper.containment.get("rung"),
        }
        if kept.limits_missing:
            identity["limits_missing"] = list(kept.limits_missing)
            log.warning(
                "limit_unenforced",
                limits=list(kept.limits_missing),
                why="this host's containment has no such controller",
            )
        try:
            await self._db.patiently(self._db.start_run, self._lease.worker, run.key, identity)
        except (RunRefused, WorkerClosed) as error:
            log.warning("run_lost", error=str(error))
            held.stop("lost")

    async def _abandon(self, run: Run, held: Held) -> None:
        """After an accident of ours: end the tree, then settle the run as our failure."""
        held.stop("daemon_error")
        with move_on_after(self._settings.lease.total_seconds()):
            async with background() as beside:
                beside.start_soon(self._ender.obey, run, held)
                ending = await self._keeper.exited(run.id)
            try:
                known = run.adapter in ADAPTERS  # an unknown one may have been the accident
                adapter = adapter_for(run) if known else CommandAdapter()
                await self._settler.settle(run.key, ending, judge(ending, adapter), {})
            except (RunRefused, WorkerClosed) as error:
                log.warning("run_refused", error=str(error), run_directory="kept")

    def _directory(self, run: Run) -> Path:
        return self._settings.state_dir / "runs" / str(run.id)


async def _cap(watched: Watched, held: Held) -> None:
    await watched.over.wait()
    held.stop("output_limit")


async def _follow(recorder: Recorder, ended: Event) -> None:
    """Pass on what the run writes, until its tree is gone. Never cancelled between a read and its delivery."""
    pause = QUICK
    while not ended.is_set():
        pause = QUICK if await recorder.pump() else min(SLOW, pause * 1.5)
        with move_on_after(pause):
            await ended.wait()
