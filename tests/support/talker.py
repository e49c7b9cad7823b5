"""An agent that speaks in JSON events, with a word of plain output now and then. talker.py EVENTS FIRST [PAUSE]

FIRST bytes of plain output come before all else. Every line of both kinds can be told by its number.
"""

import json
import os
import sys
import time

SIZE = 10_000
FILL = "the quick brown fox jumps over the lazy dog " * (SIZE // 44)
EVERY = 50


def plain(events, first=0):
    """All the output there is beside the events."""
    return (
        first * b"x" + (b"\n" if first else b"") + b"".join(b"word %d\n" % number for number in range(0, events, EVERY))
    )


def write(raw):
    while raw:
        raw = raw[os.write(1, raw) :]


def say(events, first, pause):
    write(first * b"x" + (b"\n" if first else b""))
    for number in range(events):
        if number % EVERY == 0:
            write(b"word %d\n" % number)
            time.sleep(pause)
        write(json.dumps({"type": "progress", "n": number, "fill": FILL}).encode() + b"\n")


if __name__ == "__main__":
    say(int(sys.argv[1]), int(sys.argv[2]), float((sys.argv[3:4] or ["0"])[0]))
