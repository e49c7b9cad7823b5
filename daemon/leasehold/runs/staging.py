"""A run's workspace on the daemon's side: taken before it, watched while it is made ready, reported after it. If it fails, one run fails."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from anyio import sleep, to_thread

from leasehold.agents.homes import config_plan
from leasehold.db.calls import Database
from leasehold.errors import RunRefused, WorkerClosed
from leasehold.events.mask import hidden
from leasehold.models import Exit, Run, Verdict, boottime
from leasehold.runs.given import with_secrets
from leasehold.runs.lease import Lease
from leasehold.settings import Settings
from leasehold.workspaces.place import Place, own_place, taken_place
from leasehold.workspaces.report import Staged, read_changes, read_staged

log = structlog.get_logger()

SLACK = 30.0
"""Seconds beyond its own clock after which a stage is stopped from outside."""
RECORDING = 30.0
"""Seconds that it may take to record what was changed."""
LOOK = 0.5


class Staging:
    """One run's."""

    def __init__(self, run: Run, place: Place, directory: Path) -> None:
        self.place = place
        self.run = replace(run, workspace=place.path) if place.staged else run
        self._directory = directory
        self._recording_since: float | None = None
        self.seen = Staged(phase="preparing" if place.staged else "agent")

    def look(self, now: float) -> Staged:
        """How far it has come by now."""
        if self.place.staged:
            before, self.seen = self.seen, read_staged(self._directory)
            if before.agent_at is not None and self.seen.agent_at is None:  # an agent has wrecked it
                self.seen = before
            if (
                self.seen.phase not in ("preparing", "agent") and self._recording_since is None
            ):  # whoever says it is over
                self._recording_since = now
        return self.seen

    @property
    def busy(self) -> bool:
        """Is it making ready, or tidying up? The agent's clocks do not run then."""
        return self.place.staged and self.seen.phase != "agent"

    def judged(self, ending: Exit) -> Verdict | None:
        """Why there was no agent, if the stage says so; an agent's own end is the adapter's to judge."""
        if not self.place.staged or ending.why != "exit" or ending.error is not None:
            return None
        failed = read_staged(self._directory).failed
        if failed is None or failed.message is None:
            return failed
        return replace(failed, message=hidden(failed.message, self.run))  # it may quote what a command has said

    def late(self, began: float, now: float) -> str | None:
        """Why it has to be stopped from outside: its own clock should have done it."""
        if self.place.staged and self.seen.phase == "preparing" and now - began > self.place.patience + SLACK:
            return "prepare"
        patience = RECORDING + self.place.returning
        over = self._recording_since is not None and now - self._recording_since > patience
        return "linger" if over else None


class Stages:
    """Asks the database for places, and tells it what became of them."""

    def __init__(self, settings: Settings, db: Database, lease: Lease) -> None:
        self._settings = settings
        self._db = db
        self._lease = lease

    async def take(self, run: Run) -> Staging:
        """Where the run works; asking again answers the same."""
        state_dir = self._settings.state_dir
        directory = state_dir / "runs" / str(run.id)
        if run.wants_workspace:
            said = await self._db.patiently(self._db.take_workspace, self._lease.worker, run.key)
            place = taken_place(said, run, state_dir, directory)
        else:
            place = own_place(run, directory)
        config = config_plan(run, state_dir)
        known = await with_secrets(run, place.env_file, place.address)
        return Staging(known, replace(place, config=config), directory)

    async def announce(self, run: Run, staging: Staging) -> None:
        """Once the agent is about to begin: on which branch, from which commit."""
        if staging.place.plan is None:
            return
        while staging.look(boottime()).agent_at is None:
            await sleep(LOOK)
        try:
            await self._report(run, staging.seen.facts, None, None)
        except (RunRefused, WorkerClosed) as error:
            log.debug("run_refused", error=str(error), about="report_workspace")

    async def report(self, run: Run, staging: Staging) -> None:
        """After the tree is gone: what was changed. Raises RunRefused, WorkerClosed."""
        if staging.place.plan is None:
            return
        directory = self._settings.state_dir / "runs" / str(run.id)
        facts = read_staged(directory).facts
        recorded = await to_thread.run_sync(_changes, run, directory)
        try:
            await self._report(run, facts, *(recorded or (None, None)))
        except (RunRefused, WorkerClosed):
            raise
        except Exception:  # what was changed is told of in vain: the run's outcome is not to be lost with it
            log.exception("run_crashed", about="report_workspace")

    async def _report(
        self, run: Run, facts: Mapping[str, Any], changes: list[dict[str, str]] | None, diff: str | None
    ) -> None:
        await self._db.patiently(self._db.report_workspace, self._lease.worker, run.key, dict(facts), changes, diff)


def _changes(run: Run, directory: Path) -> tuple[list[dict[str, str]], str] | None:
    """What was changed; a secret that an agent has written into a file is nobody's business either."""
    recorded = read_changes(directory)
    return recorded and (recorded[0], hidden(recorded[1], run))
