"""Which dialects there are. Pure."""

from collections.abc import Callable

from leasehold.agents.acp import Acp
from leasehold.agents.base import Adapter
from leasehold.agents.claude import Claude
from leasehold.agents.codex import Codex
from leasehold.agents.codex_exec import CodexExec
from leasehold.agents.command import CommandAdapter
from leasehold.models import Run

ADAPTERS: dict[str, Callable[[Run], Adapter]] = {
    "command": lambda _: CommandAdapter(),
    "codex": Codex,
    "codex-exec": CodexExec,
    "claude": Claude,
    "acp": Acp,
}
"""By the name in `agents.adapter`."""


def adapter_for(run: Run) -> Adapter:
    """A new one, that has heard nothing yet. Raises KeyError: this release does not know its name."""
    return ADAPTERS[run.adapter](run)
