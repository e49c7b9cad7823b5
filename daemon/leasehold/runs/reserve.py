"""Is there room on the disk for one more run? If it fails, one look for work fails and the next one asks again."""

import os
from pathlib import Path

import structlog

log = structlog.get_logger()


class Reserve:
    """So many bytes stay free for what the agents here have still to say: with less, nothing new is begun."""

    def __init__(self, directory: Path, least: int) -> None:
        self._directory = directory
        self._least = least
        self._short = False

    def is_there(self) -> bool:
        """Ask the file system. Said in the log when it changes."""
        there = os.statvfs(self._directory)
        free = there.f_bavail * there.f_frsize
        short = free < self._least
        if short and not self._short:
            log.error("disk_short", free=free, reserve=self._least, directory=str(self._directory),
                      decided="claim nothing until there is room; agents that run go on")  # fmt: skip
        if self._short and not short:
            log.info("disk_roomy", free=free)
        self._short = short
        return not short
