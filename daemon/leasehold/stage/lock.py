"""Who is in what the worktrees of a repository share on this host: one at a time makes something of it, and everybody who works in one says so.

If it fails, a run waits until its clock strikes.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leasehold.stage.steps import Clock
from leasehold.stage.words import StageError

PAUSE = 0.05


@contextmanager
def locked(home: Path, clock: Clock) -> Iterator[None]:
    """Hold it; the kernel lets go of it with us, however we end. Raises StageError."""
    with _file(home / "lock") as fd:
        while not _taken(fd):
            try:
                clock.check("lock")
            except StageError as error:
                if error.kind != "timeout":
                    raise
                told = f"another run held the repository's lock for all of {clock.seconds:g} seconds"
                raise StageError("timeout", "lock", told) from None
            time.sleep(PAUSE)
        yield


@contextmanager
def among(home: Path) -> Iterator[None]:
    """Be one of those who work in a worktree of it. To be begun under the lock."""
    with _file(home / "users") as fd:
        with suppress(BlockingIOError):  # no stage is alone here now: whoever pretends to be is an agent
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@contextmanager
def alone(home: Path) -> Iterator[bool]:
    """Does nobody work in a worktree of it? Under the lock nobody begins to."""
    with _file(home / "users") as fd:
        yield _taken(fd)


@contextmanager
def _file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
        yield fd
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
