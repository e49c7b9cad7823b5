"""Opens, reads, replaces and removes files where an agent may have put anything. If it fails, it raises OSError at once.

An agent owns its run directory: there may be a directory, a FIFO or a link where a file was. Nothing here follows a
link, waits for a FIFO, or reads more than it was told to.
"""

import errno
import os
import stat
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

MODE = 0o640
DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a plain file. Raises OSError, also for what is no plain file."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "this is no plain file", str(path))
    return fd


def read_file(path: Path, limit: int, *, end: bool = False) -> bytes | None:
    """The first (or, with `end`, the last) `limit` bytes; None: there is no such file, or it is not readable."""
    try:
        fd = open_file(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.pread(fd, limit, max(0, os.fstat(fd).st_size - limit) if end else 0)
    except OSError:
        return None
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """All of it; a disk that is full raises."""
    while content:
        content = content[os.write(fd, content) :]


def replace_file(path: Path, content: bytes) -> None:
    """All of the content or nothing, and on the disk. Whatever was there goes."""
    fresh = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    try:
        fd = open_file(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{fresh.name}.moved"))
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Its entries are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlock(path: Path) -> None:
    """Give ourselves back what an agent took from a directory of ours."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
            path.chmod(stat.S_IMODE(mode) | 0o700)
    except OSError:
        return  # it is gone, or not ours: whoever goes in will hear why not


def move_aside(top: Path, parts: Sequence[str], aside: str) -> bool:
    """Move the directory `parts` below `top` to `top/aside`, over no link. False: there is none. Raises OSError."""
    with ExitStack() as opened:

        def enter(name: str, flags: int, above: int) -> int:
            fd = os.open(name, flags, dir_fd=above)
            opened.callback(os.close, fd)
            return fd

        first = here = os.open(top, os.O_RDONLY | DIRECTORY & ~os.O_NOFOLLOW)
        opened.callback(os.close, first)
        try:
            for part in parts[:-1]:
                here = enter(part, os.O_RDONLY | DIRECTORY, here)
            itself = enter(parts[-1], os.O_PATH | DIRECTORY, here)
            with suppress(OSError):  # what is locked can only be renamed; if it is not ours, that says why not
                os.chmod(f"/proc/self/fd/{itself}", stat.S_IMODE(os.fstat(itself).st_mode) | 0o700)  # noqa: PTH101 a descriptor's
            os.rename(parts[-1], aside, src_dir_fd=here, dst_dir_fd=first)
        except FileNotFoundError:
            return False
    return True


def remove_tree(path: Path, as_agent: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """Start `rm -rf`, so that nobody waits for it; the caller reaps it. What the agent's user owns, that user removes."""
    empty = 'chmod -R u+rwX -- "$0/workspace" 2>/dev/null; rm -rf -- "$0/workspace" 2>/dev/null'
    script = 'trash=$0; "$@" "$trash"; chmod -R u+rwX -- "$trash" 2>/dev/null; exec rm -rf -- "$trash"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(path), *as_agent, "/bin/sh", "-c", empty],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
