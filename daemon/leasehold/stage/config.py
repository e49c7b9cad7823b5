"""An agent's private configuration for one run. If it fails, its agent is not started."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def private(plan: Mapping[str, object] | None, stopped: Callable[[], bool]) -> Iterator[Mapping[str, str]]:
    """What the agent's environment gets besides. Raises StageError before it yields, never after."""
    del plan, stopped
    yield {}
