"""One JSON object per line on stderr. If it fails, a line is lost and nothing else."""

import json
import sys
import time


def log(event: str, level: str = "info", **fields: object) -> None:
    """Write one line: `ts` (UTC), `level`, `event`, then the fields."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = json.dumps({"ts": stamp, "level": level, "event": event, **fields}, default=str)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody reads our log any more: the agents are no worse for it
