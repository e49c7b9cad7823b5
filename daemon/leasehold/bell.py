"""A wake-up that cannot be lost. If it fails, the daemon sleeps until the next poll."""

from anyio import Event, move_on_after


class Bell:
    """Many may ring, one waits. A ring while nobody waits is kept; many rings count as one.

    The order at the waiter is: wait, then look. The bell is re-armed before the waiter looks,
    so whatever changes during the look rings for the next wait.
    """

    def __init__(self) -> None:
        self._rung = Event()

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._rung.set()

    async def wait(self, at_most: float) -> bool:
        """Wait for a ring, `at_most` seconds; say whether there was one."""
        with move_on_after(at_most):
            await self._rung.wait()
        rung, self._rung = self._rung.is_set(), Event()
        return rung
