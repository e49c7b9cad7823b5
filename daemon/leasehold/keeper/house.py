"""All runs of this keeper: spawn, tick, settle, forget. If it fails, the keeper fails and the next one sweeps."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from leasehold.keeper import procfs
from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.containment import Groups
from leasehold.keeper.log import log
from leasehold.keeper.procfs import Process
from leasehold.keeper.record import Record, ended, never_started
from leasehold.keeper.run import Run
from leasehold.keeper.rundir import RunDirectory
from leasehold.keeper.spawn import SpawnError, check_directory, check_program, environment, start
from leasehold.keeper.sweep import Families, strangers

Tell = Callable[[dict[str, object]], None]
LOOK = 1.0
"""Seconds between two looks at who descends from whom, while runs live and no cgroup holds them."""


class House:
    """The runs. Told when to act by the server's loop."""

    def __init__(self, state_dir: Path, keeper_id: str, groups: Groups | None, tell: Tell) -> None:
        self._runs_dir = state_dir / "runs"
        self._runs_dir.mkdir(mode=0o750, exist_ok=True)
        self.keeper_id = keeper_id
        self.groups = groups
        self._tell = tell
        self._families = Families(keeper_id, os.getpid())
        self.runs: dict[int, Run] = {}
        self._unwritten: set[int] = set()
        self._helpers: set[int] = set()  # our own children that are no agents: they remove large directories
        self._next_look = 0.0

    @property
    def rung(self) -> str:
        """The containment in force."""
        return "cgroup" if self.groups else "subreaper"

    @property
    def live(self) -> list[Run]:
        """Runs whose tree is not known to be gone."""
        return [run for run in self.runs.values() if run.exit is None]

    def directory(self, run_id: int) -> RunDirectory:
        """Where a run's files are."""
        return RunDirectory(self._runs_dir, run_id)

    def spawn(
        self, run: Run, argv: list[str], env: dict[str, str], cwd: str | None, stdin: object, limits: dict[str, object]
    ) -> Run:
        """Start `run`, or write why not; a run id that has been here is only described."""
        if known := self.runs.get(run.run_id):
            return known
        self.runs[run.run_id] = run
        try:
            self._start(run, argv, env, cwd, stdin, limits)
        except SpawnError as error:
            self.settle(run, never_started(run, self.keeper_id, "exit", error))
        except OSError as error:
            kind = "disk_full" if error.errno in (28, 122) else "failed"
            failed = SpawnError(kind, f"cannot prepare the run: {error}")
            self.settle(run, never_started(run, self.keeper_id, "exit", failed))
        return run

    def _start(
        self, run: Run, argv: list[str], env: dict[str, str], cwd: str | None, stdin: object, limits: dict[str, object]
    ) -> None:
        directory = run.directory
        directory.create({"run_id": run.run_id, "argv0": argv[0], "cwd": cwd, "env": sorted(env), "limits": limits})
        where = cwd or str(directory.workspace())
        full = environment({**env, "LEASEHOLD_RUN_ID": str(run.run_id), "LEASEHOLD_KEEPER_ID": self.keeper_id})
        check_directory(where)
        check_program(argv[0], where, full["PATH"])
        run.program = argv[0]
        reader = self._stdin(run, stdin)
        try:
            directory.mark_started(
                {"run_id": run.run_id, "token": run.token, "boot_id": boot_id()}
            )  # used up from here on (rule 24)
            if self.groups is not None:
                run.group = self.groups.make(run.run_id)
                run.missing = run.group.limit(limits)
            else:
                run.missing = sorted(limits)
            if boottime() >= run.deadline:  # as late as can be: a spawn may have waited anywhere (rule 3)
                self.settle(run, never_started(run, self.keeper_id, "deadline"))
                return
            run.own(start(argv, full, where, directory, run.group, reader))
        finally:
            os.close(reader)
        directory.mark_process({"pid": run.pid, "start_time": run.start_time})

    def _stdin(self, run: Run, stdin: object) -> int:
        if isinstance(stdin, dict) and isinstance(stdin.get("text"), str):
            return run.directory.stdin_text(stdin["text"].encode("utf-8", "surrogatepass"))
        if isinstance(stdin, dict) and stdin.get("fifo"):
            reader, run.stdin_writer = run.directory.stdin_fifo()
            return reader
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def tick(self) -> None:
        """Reap, look, act, settle. Cheap when nothing is due."""
        now = boottime()
        leaders = {run.pid for run in self.live if run.pid is not None and run.leading}
        self._reap_orphans({run.pid for run in self.live if run.pid is not None})
        ended = [run for run in self.live if run.leader_ended()]
        if ended and not self._left_over(leaders):
            ended = [run for run in ended if not self._settle_clean(run)]
        due = [run for run in self.live if run in ended or run.next_at(now) <= now]
        if due or now >= self._next_look:
            self._act(due, now)
        for run_id in list(self._unwritten):
            self._write(self.runs[run_id])

    def _left_over(self, leaders: set[int]) -> bool:
        """Do we have children that lead no run? All that a dead leader leaves behind is given to us by the kernel."""
        return any(one.pid not in self._helpers for one in strangers(leaders))

    def _settle_clean(self, run: Run) -> bool:
        """The usual end: nothing was left behind, so there is nothing to look for."""
        if not run.gone([]):
            return False
        record = ended(run, self.keeper_id, self.rung)
        run.close()
        self.settle(run, record)
        return True

    def _act(self, due: list[Run], now: float) -> None:
        members = self.members()
        self._next_look = now + LOOK
        for run in self.live:
            if run.held:  # somebody may have been born while the others were stopped
                run.hold(members.get(run.run_id, []))
        for run in due:
            before = run.state
            run.act(now, members.get(run.run_id, []))
            if run.state == "unkillable" != before:
                self._tell({"event": "unkillable", "run_id": run.run_id, "processes": run.describe()["unkillable"]})
        if any(run.leader_ended() for run in due):  # look again: the kill has just changed the picture
            members = self.members()
        for run in due:
            if not members.get(run.run_id):
                self._settle_clean(run)

    def members(self) -> dict[int, list[Process]]:
        """Who belongs to which live run now."""
        leaders = {run.run_id: (run.pid, run.start_time or 0) for run in self.live if run.pid is not None}
        members = self._families.look({run_id: (pid or 0, start) for run_id, (pid, start) in leaders.items()})
        known = {one.pid for each in members.values() for one in each}
        lost = [
            one for one in strangers({run.pid for run in self.live if run.pid}) if one.pid not in known | self._helpers
        ]
        if lost and len(self.live) == 1:  # an orphan with nothing to tell whose it is: there is only one it can be
            members.setdefault(self.live[0].run_id, []).extend(lost)
        for run in self.live:
            if run.group is not None:
                here = {one.pid for one in members.get(run.run_id, [])}
                more = [
                    found
                    for pid in run.group.pids()
                    if pid not in here and (found := procfs.process(pid)) and found.alive
                ]
                members.setdefault(run.run_id, []).extend(more)
        return members

    def _reap_orphans(self, leaders: set[int]) -> None:
        for pid in procfs.own_children():
            if pid not in leaders:
                with suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        self._helpers.discard(pid)

    def settle(self, run: Run, record: Record) -> None:
        """The tree is gone: record on disk, then tell. On a full disk the record counts all the same, from memory."""
        run.exit = record
        run.state = "exited"
        self._unwritten.add(run.run_id)
        self._write(run)
        log("exited", run_id=run.run_id, why=record["why"], exit_code=record["exit_code"], swept=record["swept"])
        self._tell({"event": "exited", "run_id": run.run_id, "exit": record})

    def _write(self, run: Run) -> None:
        try:
            run.directory.write_exit(run.exit or {})
        except OSError as error:
            log("exit_record_unwritten", "error", run_id=run.run_id, error=str(error), decided="try again in a second")
            return
        self._unwritten.discard(run.run_id)

    def tombstone(self, run_id: int, why: str) -> Run:
        """A stop for a run that was never spawned here: a spawn that comes late must not start it (rule 24)."""
        run = Run(run_id, "", boottime(), 0.0, self.directory(run_id))
        self.runs[run_id] = run
        self.settle(run, never_started(run, self.keeper_id, why))
        return run

    def forget(self, run_id: int) -> None:
        """The outcome is in the database."""
        self.runs.pop(run_id, None)
        self._unwritten.discard(run_id)
        if helper := self.directory(run_id).remove():
            self._helpers.add(helper.pid)

    def next_at(self) -> float | None:
        """When the loop must come back (CLOCK_BOOTTIME); None: when something happens."""
        now = boottime()
        times = [run.next_at(now) for run in self.live]
        if self._unwritten:
            times.append(now + 1.0)
        if times and self.groups is None:
            times.append(self._next_look)
        return min(times, default=None)
