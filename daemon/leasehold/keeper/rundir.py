"""The run directory: the interface between agent, keeper and daemon. If it fails, one run does not start."""

import json
import os
import stat
import subprocess
from pathlib import Path

from leasehold.keeper.punch import punch

FILES = ("spec.json", "stdin", "stdout", "stderr", "started", "exit.json", "tree.txt", "exec_failed")
"""All that is in one, beside `workspace`."""


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
        """A descriptor that appends to `stdout` or `stderr`."""
        return self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def punch(self, name: str, start: int, end: int) -> bool:
        """Free that range of `stdout` or `stderr`, as far as it is written; False: the file system cannot."""
        try:
            file = self._open(name, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            return start < (end := min(end, os.fstat(file).st_size)) and punch(file, start, end)
        except OSError:
            return False
        finally:
            os.close(file)

    def stdin_text(self, content: bytes) -> int:
        """A descriptor that reads the prompt."""
        self._write("stdin", content)
        return self._open("stdin", os.O_RDONLY)

    def stdin_fifo(self) -> tuple[int, int]:
        """Descriptors (agent's reading end, our writing end) of a FIFO that the daemon may open as well."""
        path = self.path / "stdin"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        path.chmod(0o660)  # the daemon may be another user of our group
        # without O_NONBLOCK the open would wait for a writer
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        return reader, os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def mark_started(self, facts: dict[str, object]) -> None:
        """The marker that this run id is used up; on the disk before the agent exists (rule 24).

        The file alone is synced: after a crash of the host no daemon asks for a run id of an earlier boot.
        """
        fd = self._open("started", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(fd, json.dumps(facts).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def mark_process(self, facts: dict[str, object]) -> None:
        """Add the process to the marker. Only of use while this boot lasts, so it is not synced."""
        fd = self._open("started", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, json.dumps(facts).encode() + b"\n")
        finally:
            os.close(fd)

    def started(self) -> dict[str, object] | None:
        """The marker, or None: nothing was ever started here."""
        try:
            lines = (self.path / "started").read_bytes().splitlines()
        except OSError:
            return None
        facts: dict[str, object] = {}
        for line in lines:
            facts.update(_object(line) or {})
        return facts

    def write_exit(self, record: dict[str, object]) -> None:
        """The exit record, all of it or nothing, on the disk."""
        self.path.mkdir(mode=0o750, exist_ok=True)
        fresh = self.path / "exit.json.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, json.dumps(record).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(self.path / "exit.json")
        self._sync(self.path)

    def exit(self) -> dict[str, object] | None:
        """The exit record, or None."""
        try:
            return _object((self.path / "exit.json").read_bytes())
        except OSError:
            return None

    def write_tree(self, story: str) -> None:
        """Add to the story of what was about to be killed."""
        fd = self._open("tree.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, story.encode("utf-8", "replace"))
        finally:
            os.close(fd)

    def exec_failed(self) -> str | None:
        """What the placement wrapper wrote when exec failed: its exit status; None: the agent ran."""
        try:
            return (self.path / "exec_failed").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return None

    def last_words(self) -> str:
        """The end of stderr."""
        try:
            return (self.path / "stderr").read_bytes()[-400:].decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def size(self, name: str) -> int:
        """Bytes of `stdout` or `stderr`."""
        try:
            found = (self.path / name).lstat()
        except OSError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) else 0

    def remove(self) -> "subprocess.Popen[bytes] | None":
        """Remove it all; a workspace with something in it by a helper process, so that nobody waits for it."""
        aside = self.runs.parent / f"trash-{self.run_id}-{os.urandom(4).hex()}"
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return None
        for name in FILES:
            (aside / name).unlink(missing_ok=True)
        try:
            if (aside / "workspace").is_dir():
                (aside / "workspace").rmdir()
            aside.rmdir()
        except OSError:
            return remove_tree(aside)
        return None

    def _write(self, name: str, content: bytes) -> None:
        (self.path / name).unlink(missing_ok=True)
        fd = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            while content:
                content = content[os.write(fd, content) :]
        finally:
            os.close(fd)

    def _open(self, name: str, flags: int) -> int:
        # an agent owns its directory: never follow a link that it put there
        return os.open(self.path / name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    @staticmethod
    def _sync(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_tree(path: Path) -> "subprocess.Popen[bytes]":
    """Start `rm -rf`; the caller reaps it."""
    script = 'chmod -R u+rwX -- "$0" 2>/dev/null; exec rm -rf -- "$0"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _object(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
