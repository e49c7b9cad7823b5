"""A flood whose every byte is known by its offset. As a program: flood.py BYTES [FD [PAUSE]] writes it as fast as it can."""

import os
import sys
import time
from pathlib import Path

BLOCK = 64 * 1024
FILL = (b"all work and no play makes jack a dull boy, said the log line\n" * (BLOCK // 62 + 1))[: BLOCK - 16]


def block(number):
    return b"%015d\n" % number + FILL


def flood(start, end):
    """The flood's bytes in [start, end)."""
    first, last = start // BLOCK, -(-end // BLOCK)
    return b"".join(block(number) for number in range(first, last))[start - first * BLOCK : end - first * BLOCK]


def write(total, fd, pause):
    text = bytearray(block(0))
    for number in range(-(-total // BLOCK)):
        text[:15] = b"%015d" % number
        view = memoryview(text)[: total - number * BLOCK]
        while view:
            view = view[os.write(fd, view) :]
        if pause:
            time.sleep(pause)


def rss(pid):
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def on_disk(directory):
    """Bytes that the files below a directory cost, holes left out."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


if __name__ == "__main__":
    write(int(sys.argv[1]), *(int(word) for word in sys.argv[2:3] or ["1"]), float((sys.argv[3:4] or ["0"])[0]))
