"""Follow one growing file of a run directory by offset, in bounded bites. If it fails, one run fails."""

import errno
import os
import stat
from pathlib import Path

BITE = 256 * 1024
"""Bytes read at once."""
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW

NOT_OURS = (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.ENOTDIR)
"""What an agent that owns the directory may have made of a file: a link, a socket, something locked, no directory at all."""


class Tail:
    """A file that somebody else appends to. It may not be there yet; then it is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self.offset = 0

    def read(self, most: int = BITE) -> bytes:
        """The next bytes, at most so many; empty when there are none yet."""
        if self._file is None and not self._open():
            return b""
        assert self._file is not None
        data = os.pread(self._file, most, self.offset)
        self.offset += len(data)
        return data

    @property
    def size(self) -> int:
        """Bytes written so far, read or not."""
        return max(self.offset, os.fstat(self._file).st_size) if self._file is not None else self.offset

    @property
    def unread(self) -> int:
        """Bytes that wait to be read."""
        return self.size - self.offset if self._file is not None or self._open() else 0

    def close(self) -> None:
        """Give the file back. Reading again opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> bool:
        # the agent owns the directory: a link or a device that it put there is nothing of its output
        try:
            file = os.open(self._path, FLAGS)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in NOT_OURS:
                return False
            raise
        if stat.S_ISREG(os.fstat(file).st_mode):
            self._file = file
            return True
        os.close(file)
        return False
