"""The run directory: the interface between agent, keeper and daemon. If it fails, one run does not start."""

import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from leasehold.keeper.files import open_file, read_file, remove_tree, replace_file, unlock, write_all
from leasehold.keeper.punch import punch

FILES = ("spec.json", "stdin", "stdout", "stderr", "started", "exit.json", "tree.txt", "exec_failed")
"""All that is in one, beside `workspace`."""
RECORD_LIMIT = 4 * 1024 * 1024
"""Bytes of a marker or record that are read."""


class RunDirectory:
    """`<state>/runs/<run id>/`; files readable by the group, so that a daemon of another user can follow."""

    def __init__(self, runs: Path, run_id: int) -> None:
        self.run_id = run_id
        self.runs = runs
        self.path = runs / str(run_id)

    def create(self, spec: dict[str, object]) -> None:
        """Make the directory and its empty output files. What an unstarted spawn left there is replaced."""
        self.path.mkdir(mode=0o750, exist_ok=True)
        self._write("spec.json", json.dumps(spec, indent=1).encode("utf-8", "surrogateescape"))
        for name in ("stdout", "stderr"):
            os.close(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def workspace(self) -> Path:
        """The directory of a run that was given none."""
        path = self.path / "workspace"
        path.mkdir(mode=0o750, exist_ok=True)
        return path

    def output(self, name: str) -> int:
        """A descriptor that appends to `stdout` or `stderr`; agents expect one that waits."""
        fd = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.set_blocking(fd, True)
        return fd

    def stdin_text(self, content: bytes) -> int:
        """A descriptor that reads the prompt."""
        self._write("stdin", content)
        fd = self._open("stdin", os.O_RDONLY)
        os.set_blocking(fd, True)
        return fd

    def mark_started(self, facts: dict[str, object]) -> None:
        """The marker that this run id is used up; on the disk before the agent exists (rule 24).

        The file alone is synced: after a crash of the host no daemon asks for a run id of an earlier boot.
        """
        self._append("started", json.dumps(facts).encode() + b"\n", os.O_CREAT | os.O_EXCL, sync=True)

    def mark_process(self, facts: dict[str, object]) -> None:
        """Add the process to the marker. Only of use while this boot lasts, so it is not synced."""
        self._append("started", json.dumps(facts).encode() + b"\n")

    def started(self) -> dict[str, object] | None:
        """The marker, empty if an agent wrecked it; None: nothing was ever started here."""
        if not os.path.lexists(self.path / "started"):
            return None
        facts: dict[str, object] = {}
        for line in (read_file(self.path / "started", RECORD_LIMIT) or b"").splitlines():
            facts.update(_object(line) or {})
        return facts

    def write_exit(self, record: dict[str, object]) -> None:
        """The exit record, all of it or nothing, on the disk."""
        unlock(self.path)
        self.path.mkdir(mode=0o750, exist_ok=True)
        replace_file(self.path / "exit.json", json.dumps(record).encode() + b"\n")

    def exit(self) -> dict[str, object] | None:
        """The exit record, or None."""
        return _object(read_file(self.path / "exit.json", RECORD_LIMIT) or b"")

    def write_tree(self, story: str) -> None:
        """What was about to be killed, for a reader on this host; the record has it too, so it may fail."""
        with suppress(OSError):
            self._append("tree.txt", story.encode("utf-8", "replace"), os.O_CREAT)

    def exec_failed(self) -> str | None:
        """What the placement wrapper wrote when exec failed: its exit status; None: the agent ran."""
        said = read_file(self.path / "exec_failed", 64)
        return None if said is None else said.decode("ascii", "replace").strip()

    def last_words(self) -> str:
        """The end of stderr."""
        return (read_file(self.path / "stderr", 400, end=True) or b"").decode("utf-8", "replace").strip()

    def size(self, name: str) -> int:
        """Bytes of `stdout` or `stderr`."""
        try:
            found = (self.path / name).lstat()
        except OSError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) else 0

    def punch(self, name: str, start: int, end: int) -> bool:
        """Free that range of `stdout` or `stderr`, as far as it is written; False: the file system cannot."""
        try:
            file = self._open(name, os.O_WRONLY)
        except OSError:
            return False
        try:
            return start < (end := min(end, os.fstat(file).st_size)) and punch(file, start, end)
        except OSError:
            return False
        finally:
            os.close(file)

    def remove(self) -> "subprocess.Popen[bytes] | None":
        """Remove it all; what does not go at once by a helper process, so that nobody waits for it."""
        aside = self.runs.parent / f"trash-{self.run_id}-{os.urandom(4).hex()}"
        unlock(self.path)
        try:
            if self.path.is_symlink():  # somebody's joke: the link goes, what it leads to stays
                self.path.unlink()
                return None
            self.path.rename(aside)
        except FileNotFoundError:
            return None
        try:
            for name in FILES:
                (aside / name).unlink(missing_ok=True)
            if (aside / "workspace").is_dir():
                (aside / "workspace").rmdir()
            aside.rmdir()
        except OSError:
            return remove_tree(aside)
        return None

    def _write(self, name: str, content: bytes) -> None:
        (self.path / name).unlink(missing_ok=True)
        self._append(name, content, os.O_CREAT | os.O_EXCL)

    def _append(self, name: str, content: bytes, flags: int = 0, *, sync: bool = False) -> None:
        fd = self._open(name, os.O_WRONLY | os.O_APPEND | flags)
        try:
            write_all(fd, content)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _open(self, name: str, flags: int) -> int:
        return open_file(self.path / name, flags)


def _object(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
