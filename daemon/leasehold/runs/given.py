"""The secrets that a run is given in files, so that nothing of them leaves the run's own. If it fails, one run fails.

As they were when it was taken up: what an agent is given anew by its vendor while it runs is known to nobody but the agent.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from anyio import move_on_after, to_thread

from leasehold.events.named import secrets_in, secrets_of_address
from leasehold.models import Run

LARGEST = 256 * 1024
"""Bytes of a credential that are looked through."""
PATIENCE = 10.0
"""Seconds for a file system that does not answer: what cannot be read is not known."""


async def with_secrets(run: Run, given: str = "", address: str = "") -> Run:
    """The run, knowing the secrets of its credential, of its files of settings, of `given`, and of its repository's `address`."""
    texts = [*run.config_files.values(), given]
    if run.credential is not None:
        with move_on_after(PATIENCE):
            texts.append(await to_thread.run_sync(_read, run.credential, abandon_on_cancel=True))
    found = await to_thread.run_sync(_secrets, texts)
    return replace(run, secrets=found | secrets_of_address(address))


def _secrets(texts: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*map(secrets_in, texts))


def _read(path: str) -> str:
    """What we may not read is not ours to hide."""
    with suppress(OSError, ValueError):  # a path with a NUL is none
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 -- to open a device may do something
            return ""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return _begins(fd)
        finally:
            os.close(fd)
    return ""


def _begins(fd: int) -> str:
    with os.fdopen(fd, "rb", closefd=False) as file:
        return file.read(LARGEST).decode("utf-8", "replace")
