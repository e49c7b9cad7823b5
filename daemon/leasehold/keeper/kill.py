"""The killing of one tree: begun once, gone on with until nothing is left, touching no disk. If it fails, one tree lives."""

from collections.abc import Sequence
from signal import SIGKILL
from typing import ClassVar

from leasehold.keeper import procfs
from leasehold.keeper.clock import boottime
from leasehold.keeper.containment import Group
from leasehold.keeper.log import log
from leasehold.keeper.look import tree
from leasehold.keeper.procfs import Process

PAUSES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds between the first passes."""
SLOWLY = 1.0
"""Seconds between the passes at a tree that does not die."""


class Kill:
    """One run's. `story` is the tree as the first pass found it."""

    patience: ClassVar[float] = 10.0
    """Seconds after which a tree that is still there is called unkillable; it is killed on, slowly."""

    __slots__ = ("_killed", "_left", "_passes", "_run_id", "_since", "hopeless", "next_at", "story")

    def __init__(self, run_id: int) -> None:
        self._run_id = run_id
        self._since: float | None = None
        self._passes = 0
        self._killed: set[tuple[int, int]] = set()
        self._left: Sequence[Process] = ()
        self.hopeless = False
        self.next_at = 0.0
        self.story: str | None = None

    @property
    def begun(self) -> bool:
        """Is the tree to be gone?"""
        return self._since is not None

    @property
    def swept(self) -> int:
        """How many processes were killed."""
        return len(self._killed)

    def begin(self) -> None:
        """From now on nothing of it may live."""
        if self._since is None:
            self._since = boottime()

    def go_on(self, members: Sequence[Process], group: Group | None) -> None:
        """One pass."""
        self._passes += 1
        if self.story is None and members:
            self.story = tree(members)
        if group is not None:
            group.kill()
        self.strike(members)
        if self._since is not None and boottime() - self._since > self.patience:
            self.give_up_on(members)
        self.next_at = boottime() + (SLOWLY if self.hopeless else PAUSES[min(self._passes, len(PAUSES)) - 1])

    def give_up_on(self, members: Sequence[Process]) -> None:
        """It does not die: say so once, and go on slowly."""
        if not self.hopeless:
            log("unkillable", "error", run_id=self._run_id, pids=[one.pid for one in members])
        self.hopeless, self._left = True, members

    def strike(self, members: Sequence[Process]) -> None:
        """Kill each of them, however often it is asked."""
        for one in members:
            if one.alive and procfs.send(one, SIGKILL):
                self._killed.add((one.pid, one.start))

    def left(self) -> list[dict[str, object]]:
        """Who does not die, for a reader."""
        return [{"pid": one.pid, "name": one.name, "state": one.state} for one in self._left]
