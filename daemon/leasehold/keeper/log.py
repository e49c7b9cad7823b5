"""One JSON object per line on stderr. If it fails, a line is lost and nothing else: a kill waits for no reader of logs."""

import json
import os
import select
import sys
import time

PART = 4096
"""Bytes that a pipe takes at once when it says that it takes any."""

_lost = 0


def log(event: str, level: str = "info", **fields: object) -> None:
    """Write one line: `ts` (UTC), `level`, `event`, then the fields; `lines_lost`: so many before it nobody took."""
    global _lost
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    lost = {"lines_lost": _lost} if _lost else {}
    line = json.dumps({"ts": stamp, "level": level, "event": event, **fields, **lost}, default=str)
    _lost = 0 if _write(line.encode() + b"\n") else _lost + 1


def _write(line: bytes) -> bool:
    """False: nobody reads our log, or its disk is full; the agents are no worse for it."""
    try:
        file = sys.stderr.fileno()
        while line:
            if not _ready(file):
                return False
            line = line[os.write(file, line[:PART]) :]
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _ready(file: int) -> bool:
    """Would a write not wait?"""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return any(said & select.POLLOUT for _, said in poll.poll(0))
