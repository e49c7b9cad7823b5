"""What the stage says: to the run's stderr, and why it goes no further. Nothing can fail here."""

import re
import sys

WORDS = 4000
"""Characters of a message."""
LOGIN = re.compile(r"(https?://)[^/\s'\"]*@", re.IGNORECASE)
"""Who logs in, in an address of the web: maybe a token."""


def shown(text: str) -> str:
    """The same without logins in addresses, as others may read it."""
    return LOGIN.sub(r"\1***@", text)


class StageError(Exception):
    """It goes no further. `step`: where it was.

    `kind`: workspace, timeout, stopped, not_found, denied, spawn, disk_full; of the configuration: busy, config, auth.
    """

    def __init__(self, kind: str, step: str, message: str) -> None:
        super().__init__(shown(message)[:WORDS])
        self.kind = kind
        self.step = step


def say(step: str, words: str) -> None:
    """One line to stderr, which is kept as the run's output."""
    print(f"leasehold: {step}: {words}", file=sys.stderr, flush=True)  # noqa: T201 its own words go to stderr
