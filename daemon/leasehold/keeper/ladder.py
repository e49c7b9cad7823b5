"""When a stopping run gets which signal, and when it is killed. Pure: told the time, does nothing."""


class Ladder:
    """Signals at times of CLOCK_BOOTTIME, then the kill."""

    __slots__ = ("kill_at", "steps", "why")

    def __init__(self, now: float, signals: list[tuple[int, float]], why: str) -> None:
        self.why = why
        self.steps: list[tuple[float, int]] = []
        at = now
        for number, wait in signals:
            self.steps.append((at, number))
            at += wait
        self.kill_at = at

    @property
    def next_at(self) -> float:
        """When something is due."""
        return min(self.steps[0][0], self.kill_at) if self.steps else self.kill_at

    def due(self, now: float) -> list[int]:
        """The signals whose time has come; each is named once."""
        ready = [number for at, number in self.steps if at <= now]
        self.steps = [(at, number) for at, number in self.steps if at > now]
        return ready

    def shorten(self, other: "Ladder") -> None:
        """A later order may only hasten the end; the first reason stays."""
        if other.kill_at < self.kill_at:
            self.steps, self.kill_at = other.steps, other.kill_at
