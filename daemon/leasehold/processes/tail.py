"""Follow one growing file of a run directory by offset, in bounded bites. If it fails, one run fails."""

import os
from pathlib import Path

BITE = 256 * 1024
"""Bytes read at once; what one run may hold in memory of each stream."""


class Tail:
    """A file that somebody else appends to. It may not be there yet; then it is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self.offset = 0

    def read(self) -> bytes:
        """The next bytes, at most BITE; empty when there are none yet."""
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                return b""
        data = os.pread(self._file, BITE, self.offset)
        self.offset += len(data)
        return data

    def close(self) -> None:
        """Give the file back. Reading again opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
