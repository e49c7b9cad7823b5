"""Holds a whole tree still and lets it go again: freezes its group, else stops its members. If it fails, it runs on."""

from collections.abc import Sequence
from signal import SIGCONT, SIGSTOP

from leasehold.keeper import procfs
from leasehold.keeper.containment import Group
from leasehold.keeper.procfs import Process

STOPPED = frozenset("Tt")


class Hold:
    """One run's. What the agent had stopped itself stays stopped afterwards."""

    __slots__ = ("_stopped", "held")

    def __init__(self) -> None:
        self.held = False
        self._stopped: dict[tuple[int, int], Process] = {}

    def take(self, members: Sequence[Process], group: Group | None) -> bool:
        """Hold them; True: somebody was still running, so there may be children of theirs to hold too."""
        self.held = True
        if group is not None and group.freeze():
            return False
        moving = [one for one in members if one.state not in STOPPED]
        for one in moving:
            if procfs.send(one, SIGSTOP):
                self._stopped[one.pid, one.start] = one
        return bool(moving)

    def let_go(self, group: Group | None) -> None:
        """They run again."""
        if not self.held:
            return
        self.held = False
        if group is not None:
            group.thaw()
        for one in self._stopped.values():
            procfs.send(one, SIGCONT)
        self._stopped.clear()
