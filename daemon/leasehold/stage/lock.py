"""One at a time in what the worktrees of a repository share on this host. If it fails, a run waits until its clock strikes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leasehold.stage.steps import Clock
from leasehold.stage.words import StageError

PAUSE = 0.05


@contextmanager
def locked(home: Path, clock: Clock) -> Iterator[None]:
    """Hold it; the kernel lets go of it with us, however we end. Raises StageError."""
    fd = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
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
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
