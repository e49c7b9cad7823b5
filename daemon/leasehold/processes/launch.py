"""Start a keeper where none answers: a process of its own that outlives the daemon. If it fails, no daemon starts."""

import sys
from pathlib import Path
from subprocess import DEVNULL

import structlog
from anyio import CancelScope, open_process

log = structlog.get_logger()

IDLE = 60
"""Seconds after which a keeper that we started leaves, when it has neither runs nor a daemon."""


async def launch_keeper(state_dir: Path, socket: Path) -> None:
    """Start it detached. Two at once do no harm: the second finds the state directory locked and leaves."""
    state_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "leasehold.keeper", "--state-dir", str(state_dir), "--socket", str(socket)]
    with (state_dir / "keeper.log").open("ab") as lines, CancelScope(shield=True):
        process = await open_process(
            [*command, "--exit-when-idle-after", str(IDLE)],
            stdin=DEVNULL, stdout=lines, stderr=lines, start_new_session=True, cwd="/",
        )  # fmt: skip
    log.info("keeper_started", pid=process.pid, log=str(state_dir / "keeper.log"))
