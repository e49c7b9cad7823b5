"""The secrets that a run is given in files, so that nothing of them leaves the run's own. If it fails, one run fails.

As they were when it was taken up: what an agent is given anew by its vendor while it runs is known to nobody but the agent.
"""

import os
import stat
from contextlib import suppress
from dataclasses import replace

from anyio import to_thread

from leasehold.events.mask import secrets_in, secrets_of_address
from leasehold.models import Run

LARGEST = 256 * 1024
"""Bytes of a credential that are looked through."""


async def with_secrets(run: Run, given: str = "", address: str = "") -> Run:
    """The run, knowing the secrets of its credential, of its files of settings, of `given`, and of its repository's `address`."""
    texts = [*run.config_files.values(), given]
    if run.credential is not None:
        texts.append(await to_thread.run_sync(_read, run.credential))
    return replace(run, secrets=frozenset(secrets_of_address(address)).union(*map(secrets_in, texts)))


def _read(path: str) -> str:
    """What we may not read is not ours to hide."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read(LARGEST).decode("utf-8", "replace")
    return ""
