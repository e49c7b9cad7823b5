"""Which program an agent's row means on this host, and which version it is: found as the keeper would, asked for five seconds at most. If it fails, one line of a list says so."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from leasehold.agents.programs import is_older, known, version_in

PATIENCE = 5.0
"""Seconds for a program to say its version."""
SAID = 4096
"""Bytes of what it says then that are read."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of looking for it."""

    path: str | None
    how: str
    version: str | None = None
    problem: str | None = None


def look_at(rows: Sequence[Mapping[str, Any]]) -> list[Found]:
    """Each row's program, several at a time."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(look, rows))


def look(row: Mapping[str, Any]) -> Found:
    """The program of one row of leasehold.agents."""
    command, launcher = row["command"][0], row["launcher"]
    if launcher:
        return Found(None, f"its launcher {launcher[0]} finds it", None, None)
    found = find(command, (row["env"] or {}).get("PATH"), row["workspace"])
    program = known(command)
    if found.path is None or program is None:
        return found
    version, problem = version_of(found.path)
    if version is not None and is_older(version, program.tested):
        problem = f"older than {program.tested}, which is tested"
    return Found(found.path, found.how, version, problem)


def find(command: str, path: str | None, workspace: str | None) -> Found:
    """Where the keeper would find it, as far as this shell can tell."""
    if "/" in command:
        full = Path(workspace or "/", command)
        if not full.is_absolute() or (not command.startswith("/") and workspace is None):
            return Found(None, "relative to each run's directory")
        how = "absolute path" if command.startswith("/") else "in its workspace"
        if not full.exists():
            return Found(None, how, None, "there is no such file")
        fit = full.is_file() and os.access(full, os.X_OK)
        return Found(str(full), how) if fit else Found(None, how, None, "it may not be executed")
    how = "PATH of its env" if path else "PATH of this shell"
    if found := shutil.which(command, path=path):
        return Found(found, how)
    return Found(None, how, None, f"there is no {command} on {path or os.environ.get('PATH', os.defpath)}")


def version_of(path: str) -> tuple[str | None, str | None]:
    """What it answers to `--version`, and what went wrong; with nobody's home, keys or configuration."""
    with TemporaryDirectory() as home, TemporaryFile() as out:
        env = {"HOME": home, "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        try:
            status = _ask([path, "--version"], env, home, out)
        except OSError as error:
            return None, f"it could not be started: {error.strerror}"
        version = version_in(os.pread(out.fileno(), SAID, 0).decode("utf-8", "replace"))
    if status is None:
        return version, f"it did not say its version within {PATIENCE:g} s"
    if status != 0:
        return version, f"it answers --version with exit code {status}"
    return version, None if version else "it does not say its version"


def _ask(argv: list[str], env: Mapping[str, str], home: str, out: IO[bytes]) -> int | None:
    """Its status; None: it was killed, with all it had started."""
    child = subprocess.Popen(
        argv, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
