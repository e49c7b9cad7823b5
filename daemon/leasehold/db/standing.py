"""As whom an embedded PostgreSQL runs, and that it dies with its owner. If it fails, the embedded server fails."""

import os
import pwd
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import Signals
from subprocess import DEVNULL
from typing import NamedTuple

from anyio import run_process

from leasehold.errors import PostgresFailed

NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
"""PostgreSQL refuses to be root; inside this user namespace it is not, and files stay ours."""
REACH = ("--clear-groups", "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--")
"""Where namespaces are forbidden (most containers): another user, who may still reach root's programs and directories."""
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)
"""PR_SET_PDEATHSIG: what setpriv does, for machines without it."""


class Standing(NamedTuple):
    """A prefix for commands, and the user who must own the data."""

    prefix: tuple[str, ...]
    uid: int


async def find_standing() -> Standing:
    """As ourselves; as root, in the first way to be somebody else that works here. Raises PostgresFailed."""
    if os.geteuid() != 0:
        return Standing((), os.geteuid())
    for standing in _ways_down():
        if await _works(standing):
            return standing
    raise PostgresFailed(
        "PostgreSQL refuses to run as root, and this root may not become anybody else (unshare, setpriv).",
        hint="Run as an ordinary user, or give a DSN.",
    )


def _ways_down() -> Iterator[Standing]:
    yield Standing(NAMESPACE, 0)
    for name in ("postgres", "nobody"):  # initdb wants a user with a name
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        ids = ("--reuid", str(user.pw_uid), "--regid", str(user.pw_gid))
        yield Standing(("setpriv", *ids, *REACH), user.pw_uid)


async def _works(standing: Standing) -> bool:
    try:
        return (await run_process([*standing.prefix, "true"], check=False, stdin=DEVNULL)).returncode == 0
    except OSError:
        return False


def give(directory: Path, uid: int) -> None:
    """PostgreSQL wants to own its data: a later start may have another standing than the first."""
    if directory.stat().st_uid == uid:
        return
    os.chown(directory, uid, -1)
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            os.chown(Path(parent, name), uid, -1, follow_symlinks=False)


def dying_with_us(program: Path, signal: Signals = Signals.SIGINT) -> tuple[str, ...]:
    """However we end, the kernel sends `signal` to the program. Last in the command: a change of user forgets it."""
    if shutil.which("setpriv"):
        return ("setpriv", "--pdeathsig", signal.name.removeprefix("SIG"), "--", str(program))
    return (sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(int(signal)), str(program))
