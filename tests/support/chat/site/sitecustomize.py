"""For PYTHONPATH of a daemon under test, beside `tests`: it speaks the scripted agent's dialect, by the name `claude`."""

from leasehold.agents import registry
from support.chat.dialect import Chat

registry.ADAPTERS["claude"] = Chat
