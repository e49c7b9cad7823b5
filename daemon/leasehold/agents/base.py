"""What an adapter is: the dialect an agent speaks. Pure: no I/O, no clock, no database, no asyncio."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from leasehold.models import Command, Event, Run, Verdict


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
