"""Start a keeper where none answers: a process of its own that outlives the daemon. If it fails, no daemon starts."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import structlog
from anyio import CancelScope, fail_after, open_process, run_process

import leasehold
from leasehold.errors import KeeperAway

log = structlog.get_logger()

IDLE = 60
"""Seconds after which a keeper that we started leaves, when it has neither runs nor a daemon."""
PATIENCE = 20.0
"""Seconds for a keeper to say what it could do here."""
BEGIN = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from runpy import run_module; run_module({!r}, run_name='__main__', alter_sys=True)"
)
"""Finds a program of ours beside this very package, however it was installed, and after the standard library."""


def own_program(module: str) -> list[str]:
    """A program of our own version that takes code from nowhere but the standard library and our package.

    -I: neither the working directory nor PYTHONPATH counts. -S: nor anything else that is installed; it needs none.
    """
    home = Path(leasehold.__file__).absolute().parents[1]
    return [sys.executable, "-I", "-S", "-c", BEGIN.format(module), str(home)]


def keeper_command(state_dir: Path) -> list[str]:
    """A keeper of our own version."""
    return [*own_program("leasehold.keeper"), "--state-dir", str(state_dir)]


async def launch_keeper(state_dir: Path, socket: Path) -> None:
    """Start it detached. Two at once do no harm: the second finds the state directory locked and leaves."""
    state_dir.mkdir(parents=True, exist_ok=True)
    command = [*keeper_command(state_dir), "--socket", str(socket)]
    with (state_dir / "keeper.log").open("ab") as lines, CancelScope(shield=True):
        process = await open_process(
            [*command, "--exit-when-idle-after", str(IDLE)],
            stdin=DEVNULL, stdout=lines, stderr=lines, start_new_session=True, cwd="/",
        )  # fmt: skip
    log.info("keeper_started", pid=process.pid, log=str(state_dir / "keeper.log"))


async def try_keeper(state_dir: Path) -> Mapping[str, Any]:
    """What a keeper that we started would say of itself. Raises KeeperAway."""
    try:
        with fail_after(PATIENCE):
            said = await run_process([*keeper_command(state_dir), "--about"], stderr=PIPE, check=False, cwd="/")
        answer: Mapping[str, Any] = json.loads(said.stdout)
    except (TimeoutError, OSError, ValueError) as error:
        raise KeeperAway(f"a keeper cannot be started here: {error}") from error
    return answer
