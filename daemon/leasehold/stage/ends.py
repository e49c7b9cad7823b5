"""How a stage is asked to leave, and how it leaves. If it fails, the keeper's KILL does it."""

import os
import resource
import signal
from types import FrameType
from typing import NoReturn

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The keeper sends these to every process of the run: the agent hears them itself. A stage stays, to say what was changed."""


class Ends:
    """Notes that somebody wants the run to end: no step begins after that."""

    def __init__(self) -> None:
        self.asked: int | None = None
        for number in ASKED:  # a handler and not SIG_IGN, which whatever we start would inherit
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 signal's
        self.asked = self.asked or number


def leave(status: int) -> NoReturn:
    """End as a child did: by its exit status, or, where that is negative, by the same signal."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the agent's core is enough
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)
