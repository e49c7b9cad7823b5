"""What an adapter is: the dialect an agent speaks. Pure: no I/O, no clock, no database, no asyncio."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from leasehold.models import Command, Control, Event, Input, Run, Verdict


class Adapter(Protocol):
    """A fold over one run's stdout. Replaying the file from its start rebuilds the same state."""

    @property
    def done(self) -> bool:
        """Its result was received: it may only leave now."""

    @property
    def in_tool(self) -> bool:
        """A tool of the agent is at work, so silence means less."""

    def launch(self, run: Run, workspace: str) -> Command:
        """How to start this agent on that run; `workspace` is the directory it will run in."""

    def receive(self, line: bytes) -> Sequence[Event] | None:
        """What one whole line of stdout means; None: it is plain output."""

    def verdict(self, exit_code: int) -> Verdict:
        """How the run ended, of an agent that left by itself and all of whose words were received."""

    def freeze(self) -> Mapping[str, Any] | None:
        """Its state, as JSON can say it. None: it cannot be frozen, so no byte it has read can be let go of."""

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Be as the adapter was that said `state`; goes on with the line behind the last one it had received."""


@runtime_checkable
class Guessing(Adapter, Protocol):
    """An adapter that makes something of a line that is too long to be received."""

    def glimpse(self, head: bytes) -> Sequence[Event]:
        """What follows from how such a line begins."""


@runtime_checkable
class Conversing(Adapter, Protocol):
    """An adapter whose agent is spoken to while it lives.

    What it owes is part of its state: a replay owes the same again, under the same keys, and the keeper takes no key twice. So
    nothing is lost and nothing said twice, whoever dies in between.
    """

    @property
    def owed(self) -> Sequence[Input]:
        """What the agent is to hear and nobody has taken yet, in order."""

    def taken(self, key: str) -> None:
        """The keeper has it."""

    @property
    def ready(self) -> bool:
        """Its session is open: a control can be sent."""

    def send(self, control: Control) -> None:
        """Owe the agent this control. Sending one again changes nothing. One that comes too late ends as a `turn` event that says so."""

    @property
    def waiting(self) -> bool:
        """It has asked a human something, and cannot go on without the answer."""

    @property
    def over(self) -> bool:
        """All that was asked of it is done: its stdin may be closed, which is how it leaves."""
