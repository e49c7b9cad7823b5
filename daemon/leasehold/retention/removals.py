"""Perform the removals that the database has written down for this state directory. If it fails, directories stay longer."""

import os
from collections.abc import Mapping

import structlog
from anyio import fail_after, to_thread

from leasehold.db.calls import Database
from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.models import Removal, RunKey
from leasehold.processes.keeper import Keeper, Listed
from leasehold.retention.beneath import remove_beneath
from leasehold.runs.lease import Lease
from leasehold.runs.roster import Roster
from leasehold.settings import Settings

log = structlog.get_logger()

PATIENCE = 60.0
"""Seconds for one directory; what is left of a very large one goes the next time."""


class Remover:
    """Finds run directories that nobody needs, and removes what is wanted gone. Any step may be the last of this process."""

    def __init__(self, settings: Settings, db: Database, lease: Lease, roster: Roster, keeper: Keeper) -> None:
        self._state_dir = settings.state_dir
        self._db = db
        self._lease = lease
        self._roster = roster
        self._keeper = keeper
        self._seen: set[int] = set()

    async def remove(self) -> None:
        """One turn: what is due now, each with an answer to the database."""
        try:
            listed = await self._keeper.listed()
        except KeeperAway:  # it comes back, and so do we
            return
        for each in await self._db.take_removals(self._lease.worker):
            error = await self._remove(each, listed)
            await self._db.end_removal(self._lease.worker, each, error)
            if error is None:
                log.info("directory_removed", what=each.what, path=each.path)
            else:
                log.warning("removal_failed", what=each.what, path=each.path, error=error)

    async def find(self) -> None:
        """One turn: tell the database of run directories that were here last time, too, and that nobody follows."""
        try:
            listed = await self._keeper.listed()
        except KeeperAway:
            return
        here = await to_thread.run_sync(self._directories)
        idle = {run for run in here if run not in self._roster.held and (run not in listed or listed[run].ended)}
        twice, self._seen = idle & self._seen, idle
        keys = [(run, key.token if (key := _key(run, listed)) else None) for run in sorted(twice)]
        if keys and (found := await self._db.find_orphans(self._lease.worker, keys)):
            log.info("orphans_found", runs=found[:20], directories=len(found))

    def _directories(self) -> set[int]:
        try:
            names = [path.name for path in (self._state_dir / "runs").iterdir()]
        except FileNotFoundError:
            return set()
        return {int(name) for name in names if name.isdecimal() and name.isascii() and len(name) < 19}

    async def _remove(self, wanted: Removal, listed: Mapping[int, Listed]) -> str | None:
        """Why it could not be; None: it is gone."""
        try:
            if wanted.what == "run":
                return await self._remove_run(wanted, listed)
            try:
                with fail_after(PATIENCE):
                    await to_thread.run_sync(remove_beneath, self._state_dir, wanted.path, abandon_on_cancel=True)
            except PermissionError:  # agents may lock what is theirs; the keeper is their user
                if not self._keeper.removes:
                    raise
                await self._keeper.remove(wanted.path)
        except (OSError, KeeperAway, KeeperRefused, ValueError) as error:
            return str(error) or repr(error)
        return None

    async def _remove_run(self, wanted: Removal, listed: Mapping[int, Listed]) -> str | None:
        """Run directories are the keeper's: it owns the files, and knows whose processes live."""
        room, _, name = wanted.path.partition("/")
        path, run = self._state_dir / room / name, int(name)
        if room != "runs" or path.is_symlink():
            return f"{wanted.path} is no directory"
        if run in self._roster.held or (run in listed and not listed[run].ended):
            return "its processes live"
        key = _key(run, listed)
        if key is None or wanted.token in (
            None,
            key.token,
        ):  # else a failover gave the id to another run: it is not meant
            await self._keeper.forget(run)
            if os.path.lexists(path):
                return "it is still there"
        return None


def _key(run: int, listed: Mapping[int, Listed]) -> RunKey | None:
    return listed[run].key if run in listed else None
