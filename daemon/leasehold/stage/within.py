"""Files below a directory that an agent may have filled with anything: no link is followed. If it fails, it raises OSError."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LARGEST = 1 << 20
"""Bytes of a credential or a configuration file; what is larger is neither."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Odd(OSError):
    """Something lies there that is not the plain file it should be."""


@contextmanager
def room(path: Path, *, make: bool = True) -> Iterator[int]:
    """The directory `path` as a descriptor, made if it is not there: for us and the daemon, which removes it one day."""
    if make:
        path.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
    with _opened(os.open(path.parent, DIRECTORY & ~os.O_NOFOLLOW)) as above:
        if make:
            with suppress(FileExistsError):
                os.mkdir(path.name, 0o770, dir_fd=above)
        with _opened(os.open(path.name, DIRECTORY, dir_fd=above)) as here:
            yield here


@contextmanager
def holder(here: int, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The directory that `name`, a path below `here`, lies in, and its last word. Each is opened from the one above."""
    *above, last = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*above, last)):
        raise Odd(f"{name!r} is no name of a file below a directory")
    with _chain(here, above, make=make) as inner:
        yield inner, last


@contextmanager
def _chain(here: int, parts: list[str], *, make: bool) -> Iterator[int]:
    if not parts:
        yield here
        return
    if make:
        with suppress(FileExistsError):
            os.mkdir(parts[0], 0o770, dir_fd=here)
    with _opened(os.open(parts[0], DIRECTORY, dir_fd=here)) as next_, _chain(next_, parts[1:], make=make) as last:
        yield last


def put(here: int, name: str, raw: bytes) -> None:
    """Replace a file at once and for good: whoever reads it sees the old one or the new one, whatever dies in between."""
    with holder(here, name, make=True) as (place, last):
        new = f".{last}.{os.getpid()}.new"
        try:
            written = os.open(
                new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place
            )
            with os.fdopen(written, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, last, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=place)
            raise
        os.fsync(place)


def get(here: int, name: str) -> tuple[bytes, float]:
    """A plain file of no more than LARGEST bytes, and when it was written."""
    with (
        holder(here, name) as (place, last),
        _opened(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)) as file,
    ):
        seen = os.fstat(file)
        if not stat.S_ISREG(seen.st_mode):
            raise Odd(f"{name} is no plain file")
        with os.fdopen(os.dup(file), "rb") as reader:
            raw = reader.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise Odd(f"{name} has more than {LARGEST} bytes")
        return raw, seen.st_mtime


def drop(here: int, name: str) -> None:
    """Remove a file; gone already is fine."""
    with suppress(FileNotFoundError), holder(here, name) as (place, last):
        os.unlink(last, dir_fd=place)


def open_up(here: int) -> None:
    """Let the daemon, another user of our group, remove one day what an agent has shut: every directory below, and no link's target."""
    with suppress(OSError):
        for _, _, _, inner in os.fwalk(".", dir_fd=here):
            seen = os.fstat(inner)
            if seen.st_uid == os.geteuid() and seen.st_mode & 0o070 != 0o070:
                os.fchmod(inner, 0o770)


def remove(path: Path) -> None:
    """Remove a tree of our user's as far as it can be, also where an agent has taken our rights: caches of some tools are read-only."""
    shutil.rmtree(path, ignore_errors=True)
    if path.is_symlink() or path.is_file():  # put in its place
        with suppress(OSError):
            path.unlink()
    elif path.is_dir():
        _unlock(path)
        for above, names, _ in os.walk(path):
            for name in names:
                _unlock(Path(above, name))
        shutil.rmtree(path, ignore_errors=True)


def _unlock(path: Path) -> None:
    with suppress(OSError):
        seen = path.lstat().st_mode
        if stat.S_ISDIR(seen) and seen & 0o700 != 0o700:
            path.chmod(stat.S_IMODE(seen) | 0o700)


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
