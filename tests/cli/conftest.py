"""Hosts, agents and jobs for this room, and the command line as a script runs it."""

import asyncio
import os

import pytest
from support import forkserver
from support.fixtures import agent, ends, host, host_at, insert, written

__all__ = ["agent", "ends", "host", "host_at", "insert", "written"]


@pytest.fixture
def leasehold(dsn, tmp_path):
    """Run `leasehold ...`; answers (exit code, stdout, stderr)."""

    async def run(*words, **settings):
        env = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
        env |= {"LEASEHOLD_DATABASE_URL": dsn, "LEASEHOLD_STATE_DIR": str(tmp_path)}
        env |= {f"LEASEHOLD_{name.upper()}": value for name, value in settings.items()}
        process = await forkserver.start(*words, env=env, stdout=-1, stderr=-1)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out.decode(), err.decode()

    return run
