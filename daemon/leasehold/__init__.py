"""Leasehold: AI agents as leased subprocesses, with PostgreSQL as the only API."""

__version__ = "0.1.0"
