"""Who is running here, how many more fit, and how to ask one of them to stop. Plain state, no I/O."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio import Event

from leasehold.bell import Bell
from leasehold.models import RunKey

STATES = ("starting", "running", "stopping", "settling", "unkillable")
"""Where a run that has a place is in its life; settling: its tree is gone, its outcome is on the way."""


@dataclass(slots=True, eq=False)
class Held:
    """One place taken: a run from claim to settlement. `deadline` is what is proved (CLOCK_BOOTTIME), `told` what the keeper knows."""

    key: RunKey
    job_id: int
    attempt: int
    deadline: float
    told: float = 0.0
    why: str | None = None
    spawned: bool = False
    unkillable: bool = False
    ended: bool = False
    resting: bool = False  # it waits for a human, and has given up its place until it goes on
    inputs: Bell = field(default_factory=Bell)
    stopping: Event = field(default_factory=Event)

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.ended:
            return "settling"
        if self.unkillable:
            return "unkillable"
        if self.why is not None:
            return "stopping"
        return "running" if self.spawned else "starting"

    def stop(self, why: str) -> bool:
        """Ask it to end; the first reason stands. False: it was asked before."""
        if self.why is not None:
            return False
        self.why = why
        self.stopping.set()
        return True


class Roster:
    """The places of this daemon."""

    def __init__(self, places: int, freed: Bell) -> None:
        self._places = places
        self._freed = freed
        self._held: dict[int, Held] = {}
        self.claims_in_flight = 0
        self.empty = Event()  # but for what does not die
        self.empty.set()

    @property
    def free(self) -> int:
        """Places that a claim may fill."""
        return max(0, self._places - sum(not held.resting for held in self._held.values()))

    @property
    def held(self) -> dict[int, Held]:
        """Runs here now, by id."""
        return dict(self._held)

    def admit(self, key: RunKey, job_id: int, attempt: int, deadline: float) -> Held:
        """Take a place. From now on renewals name the run."""
        held = self._held[key.id] = Held(key, job_id, attempt, deadline)
        if self.empty.is_set():
            self.empty = Event()
        return held

    def stop_all(self, why: str) -> int:
        """Ask every run to end; how many had not been asked before."""
        return sum(held.stop(why) for held in self._held.values())

    @contextmanager
    def place(self, held: Held) -> Iterator[None]:
        """Hold the place that `admit` took; give it back at the end and ring for the next."""
        try:
            yield
        finally:
            if self._held.get(held.key.id) is held:
                del self._held[held.key.id]
            self._note_empty()
            self._freed.ring()

    def rest(self, held: Held, *, resting: bool) -> None:
        """It waits for a human and needs no place; or it goes on, and there may be one more at work than there are places."""
        if resting and not held.resting:
            self._freed.ring()
        held.resting = resting

    def give_up_on(self, held: Held) -> None:
        """Its tree does not die: it keeps its place, but nobody waits for it."""
        held.unkillable = True
        self._note_empty()

    def _note_empty(self) -> None:
        if all(held.unkillable for held in self._held.values()):
            self.empty.set()

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """A claim is in flight: what it opens is not known here yet (protocol rule 11)."""
        self.claims_in_flight += 1
        try:
            yield
        finally:
            self.claims_in_flight -= 1
