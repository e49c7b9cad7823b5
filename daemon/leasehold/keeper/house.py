"""All runs of this keeper: spawn, settle, forget. If it fails, the keeper fails and the next one sweeps."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from leasehold.keeper import procfs
from leasehold.keeper.clock import boot_id, boottime
from leasehold.keeper.containment import Groups
from leasehold.keeper.feed import Feed, Feeds
from leasehold.keeper.files import move_aside, remove_tree
from leasehold.keeper.limits import CHECKS, check
from leasehold.keeper.log import log
from leasehold.keeper.numbers import Numbers
from leasehold.keeper.record import Record, ended, lost, never_started
from leasehold.keeper.run import Run
from leasehold.keeper.rundir import RunDirectory
from leasehold.keeper.spawn import SpawnError, check_directory, check_program, environment, start

Tell = Callable[[dict[str, object]], None]


class House:
    """The runs, and what is written down about them."""

    def __init__(self, state_dir: Path, keeper_id: str, groups: Groups | None, tell: Tell) -> None:
        self._runs_dir = state_dir / "runs"
        self._runs_dir.mkdir(mode=0o750, exist_ok=True)
        self.keeper_id = keeper_id
        self.groups = groups
        self.tell = tell
        self.numbers = Numbers()
        self.feeds = Feeds()
        self.runs: dict[int, Run] = {}
        self.unwritten: set[int] = set()
        self.helpers: dict[int, int] = {}  # children of ours that are no agents, pid and start: they remove directories

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
        directory, asked = run.directory, {name for name, value in limits.items() if value is not None}
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
                run.missing = sorted({*run.group.limit(check(limits)), *(asked - CHECKS.keys())})
            else:
                run.missing = sorted(asked)
            if boottime() >= run.deadline:  # as late as can be: a spawn may have waited anywhere (rule 3)
                self.settle(run, never_started(run, self.keeper_id, "deadline"))
                return
            run.number = self.numbers.take()
            with self.numbers.worn(run.number) as worn:
                run.own(start(argv, full, where, directory, run.group, reader))
        finally:
            os.close(reader)
        self._trail(run, run.number if worn else None)

    def _trail(self, run: Run, number: int | None) -> None:
        """For the next keeper. It lives by now: whatever goes wrong here, it has not failed to start."""
        facts: dict[str, object] = {"pid": run.pid, "start_time": run.start_time, "number": number, "uid": os.getuid()}
        try:
            run.directory.mark_process(facts)
        except OSError as error:
            log("trail_unwritten", "warning", run_id=run.run_id, error=str(error), decided="its marker must do")

    def _stdin(self, run: Run, stdin: object) -> int:
        if isinstance(stdin, dict) and isinstance(stdin.get("text"), str):
            return run.directory.stdin_text(stdin["text"].encode("utf-8", "surrogatepass"))
        if isinstance(stdin, dict) and stdin.get("fifo"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            run.feed = Feed(writer, self.feeds)
            return reader
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def directories(self) -> list[int]:
        """Runs that have one."""
        return sorted(int(path.name) for path in self._runs_dir.iterdir() if path.name.isdigit())

    def empty_bin(self) -> None:
        """What an earlier keeper had begun to remove."""
        for path in self._runs_dir.parent.glob("trash-*"):
            self._remember(remove_tree(path))

    def remove(self, parts: list[str]) -> None:
        """A directory that agents have filled, and may have locked: what their user owns, their user removes. Raises OSError."""
        top, aside = self._runs_dir.parent, f"trash-{os.urandom(8).hex()}"
        if move_aside(top, parts, aside):
            self._remember(remove_tree(top / aside))

    def _remember(self, helper: "subprocess.Popen[bytes]") -> None:
        helper.returncode = 0  # the rounds reap it: no Popen may, or its pid would stay here for somebody else
        found = procfs.process(helper.pid)
        self.helpers[helper.pid] = found.start if found else 0

    def end(self, run: Run) -> None:
        """Its tree is gone."""
        ours = run.process is not None
        self.settle(run, ended(run, self.keeper_id, self.rung) if ours else lost(run, self.keeper_id, "keeper_lost"))

    def settle(self, run: Run, record: Record) -> None:
        """The tree is gone: record on disk, then tell. On a full disk the record counts all the same, from memory."""
        run.close()
        run.exit = record
        self.numbers.give_back(run.number)
        self.unwritten.add(run.run_id)
        self._write(run)
        log("exited", run_id=run.run_id, why=record["why"], exit_code=record["exit_code"], swept=record["swept"])
        self.tell({"event": "exited", "run_id": run.run_id, "exit": record})

    def write_again(self) -> None:
        """What a full disk did not take."""
        for run_id in list(self.unwritten):
            self._write(self.runs[run_id])

    def _write(self, run: Run) -> None:
        try:
            run.directory.write_exit(run.exit or {})
        except OSError as error:
            log("exit_record_unwritten", "error", run_id=run.run_id, error=str(error), decided="try again in a second")
            return
        self.unwritten.discard(run.run_id)

    def tombstone(self, run_id: int, why: str) -> Run:
        """A stop for a run that was never spawned here: a spawn that comes late must not start it (rule 24)."""
        run = Run(run_id, "", boottime(), 0.0, self.directory(run_id))
        self.runs[run_id] = run
        self.settle(run, never_started(run, self.keeper_id, why))
        return run

    def forget(self, run_id: int) -> None:
        """The outcome is in the database."""
        self.runs.pop(run_id, None)
        self.unwritten.discard(run_id)
        if helper := self.directory(run_id).remove():
            self._remember(helper)
