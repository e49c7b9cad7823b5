"""The watchdog's food: given only while both the claim and the renewal loop come round. If it stops, systemd restarts."""

from leasehold import sdnotify


class Pulse:
    """Feeds the watchdog once every one of `loops` has come round since the last time."""

    def __init__(self, *loops: str) -> None:
        self._loops = frozenset(loops)
        self._beaten: set[str] = set()

    def beat(self, loop: str) -> None:
        """Loop `loop` has come round."""
        self._beaten.add(loop)
        if self._beaten >= self._loops:
            self._beaten.clear()
            sdnotify.watchdog()
