"""Start an agent: everything that can be known to fail is checked before, the rest is told apart. If it fails, one run."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from leasehold.keeper.containment import PLACE, Group
from leasehold.keeper.rundir import RunDirectory

ALLOWED = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL", "TERM")
"""Variables of the keeper's own environment that an agent gets, beside LC_*."""
NOT_FOUND, DENIED = 127, 126
"""A shell's exit status for what it could not execute."""


class SpawnError(Exception):
    """It did not start. `kind`: not_found, denied, cwd_missing, cwd_denied, disk_full, failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The allow-list, then what the run is given."""
    base = {name: value for name, value in os.environ.items() if name in ALLOWED or name.startswith("LC_")}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **base, **own}


def check_directory(cwd: str) -> None:
    """Can an agent work there? Raises SpawnError."""
    try:
        if not os.path.isdir(cwd):  # noqa: PTH112 a str all the way
            raise SpawnError("cwd_missing", f"there is no directory {cwd}")
    except OSError as error:
        raise SpawnError("cwd_denied", f"cannot look at {cwd}: {error.strerror}") from error
    if not os.access(cwd, os.R_OK | os.X_OK):
        raise SpawnError("cwd_denied", f"may not enter or read {cwd}")


def check_program(name: str, cwd: str, path: str) -> None:
    """Is there such a program, and may we execute it? Raises SpawnError."""
    if "/" in name:
        full = os.path.join(cwd, name)  # noqa: PTH118 a relative name is meant from the workspace
        if not os.path.exists(full):  # noqa: PTH110
            raise SpawnError("not_found", f"there is no program {name}")
        if os.path.isdir(full) or not os.access(full, os.X_OK):  # noqa: PTH112
            raise SpawnError("denied", f"may not execute {name}")
    elif shutil.which(name, path=path) is None:
        there = any(os.path.exists(os.path.join(each, name)) for each in path.split(os.pathsep) if each)  # noqa: PTH110, PTH118
        if there:
            raise SpawnError("denied", f"may not execute {name}")
        raise SpawnError("not_found", f"there is no program {name} on PATH ({path})")


def start(
    argv: Sequence[str], env: dict[str, str], cwd: str, directory: RunDirectory, group: Group | None, stdin: int
) -> "subprocess.Popen[bytes]":  # fmt: skip
    """Start it in a session of its own, its output in files. Raises SpawnError."""
    words = list(argv)
    if group is not None:
        words = ["/bin/sh", "-c", PLACE, str(group.path), str(directory.path / "exec_failed"), *argv]
    out, err = directory.output("stdout"), directory.output("stderr")
    try:
        return subprocess.Popen(
            words, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=err, start_new_session=True, close_fds=True,
            restore_signals=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SpawnError("not_found", f"there is no program {argv[0]} (or its interpreter)") from error
    except PermissionError as error:
        raise SpawnError("denied", f"may not execute {argv[0]}") from error
    except (OSError, ValueError) as error:
        raise SpawnError("failed", f"cannot start {argv[0]}: {error}") from error
    finally:
        os.close(out)
        os.close(err)


def wrapper_error(directory: RunDirectory, program: str) -> SpawnError | None:
    """Did the placement wrapper fail where the agent's own end would look the same?"""
    status = directory.exec_failed()
    if not status:
        return None
    said = directory.last_words()
    if status == str(NOT_FOUND):
        return SpawnError("not_found", f"there is no program {program} (or its interpreter): {said}")
    if status == str(DENIED):
        return SpawnError("denied", f"may not execute {program}: {said}")
    return SpawnError("failed", f"could not place {program} in its group: {said}")
