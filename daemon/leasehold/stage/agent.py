"""The agent as our child: it has our stdin, stdout and stderr. If it does not start, the run says so as if there were no stage."""

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from leasehold.stage.words import StageError


def run_agent(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> int:
    """Its status when it has left, below 0 for a signal. Raises StageError: it was not started."""
    program = _find(argv[0], cwd, env.get("PATH", os.defpath))
    try:
        child = subprocess.Popen(argv, executable=program, env=dict(env), cwd=cwd)
    except OSError as error:
        kind = {errno.ENOENT: "not_found", errno.EACCES: "denied", errno.ENOEXEC: "denied"}.get(
            error.errno or 0, "spawn"
        )
        raise StageError(kind, "agent", f"cannot start {argv[0]}: {error.strerror}") from error
    except ValueError as error:  # a NUL in a word
        raise StageError("spawn", "agent", f"cannot start {argv[0]!r}: {error}") from error
    return child.wait()


def _find(name: str, cwd: str, path: str) -> str:
    """Where that program is, as the keeper would look for it. Raises StageError."""
    if "/" in name:
        full = Path(cwd, name)
        if not full.exists():
            raise StageError("not_found", "agent", f"there is no program {name}")
        if full.is_dir() or not os.access(full, os.X_OK):
            raise StageError("denied", "agent", f"may not execute {name}")
        return str(full)
    if found := shutil.which(name, path=path):
        return found
    if any(Path(each, name).exists() for each in path.split(os.pathsep) if each):
        raise StageError("denied", "agent", f"may not execute {name}")
    raise StageError("not_found", "agent", f"there is no program {name} on PATH ({path})")
