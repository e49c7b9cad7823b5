"""One daemon per state directory: a second one is refused before it touches anything."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from leasehold.errors import InstanceTaken


@asynccontextmanager
async def instance_lock(state_dir: Path, instance: str) -> AsyncIterator[None]:
    """Hold `<state>/daemon.lock`; the kernel gives it back however we end."""
    with only_one(state_dir / "daemon.lock", f"another daemon of instance {instance!r} runs with {state_dir}"):
        yield


@contextmanager
def only_one(path: Path, refusal: str, hint: str = "") -> Iterator[None]:
    """Hold this file's lock; raises InstanceTaken with these words if somebody has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InstanceTaken(refusal, hint=hint) from error
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)
