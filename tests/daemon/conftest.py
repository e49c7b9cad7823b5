"""Hosts, agents and jobs for this room."""

from support.chat.talks import talks
from support.fixtures import agent, ends, host, host_at, insert, own_server, postgres, template, written

__all__ = ["agent", "ends", "host", "host_at", "insert", "own_server", "postgres", "talks", "template", "written"]
