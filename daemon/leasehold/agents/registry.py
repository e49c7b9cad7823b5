"""Which dialects there are. Pure."""

from leasehold.agents.base import Adapter
from leasehold.agents.command import CommandAdapter

ADAPTERS: dict[str, type[Adapter]] = {"command": CommandAdapter}
"""By the name in `agents.adapter`."""
