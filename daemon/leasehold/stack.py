"""A private keeper and daemon as child processes in one directory. If it fails, the demo or the torture fails."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import IO

from anyio import CancelScope, fail_after, move_on_after, open_process, sleep
from anyio.abc import Process

from leasehold.db.client import Client
from leasehold.db.standing import dying_with_us
from leasehold.errors import KeeperAway, LeaseholdError
from leasehold.processes.link import ask_keeper

PYTHON = Path(sys.executable)
PATIENCE = 30.0
"""Seconds for a process of ours to be up."""


@asynccontextmanager
async def open_keeper_process(
    state_dir: Path, *words: str, module: Sequence[str] = ("leasehold.keeper",)
) -> AsyncIterator[Process]:
    """A keeper of our own on `state_dir` that answers; its log is `keeper.log` there. Raises LeaseholdError."""
    command = [*dying_with_us(PYTHON), "-m", *module, "--state-dir", str(state_dir), *words]
    with (state_dir / "keeper.log").open("ab") as lines:
        process = await open_process(command, stdin=DEVNULL, stdout=lines, stderr=lines, start_new_session=True)
    async with ended(process, 15):
        await _until_answered(process, state_dir)  # a daemon that finds no keeper starts one, and leaves it behind
        yield process


async def _until_answered(keeper: Process, state_dir: Path) -> None:
    with move_on_after(PATIENCE):
        while keeper.returncode is None:
            with suppress(KeeperAway):
                await ask_keeper(state_dir / "keeper.sock")
                return
            await sleep(0.02)
    raise LeaseholdError(f"our keeper does not answer: {_last_words(state_dir / 'keeper.log')}")


def _last_words(log: Path) -> str:
    last = ["it said nothing", *log.read_text(encoding="utf-8", errors="replace").splitlines()][-1]
    try:
        said = json.loads(last)
    except ValueError:
        return last
    return str(said.get("hint") or said.get("error") or last)


@asynccontextmanager
async def open_daemon_process(
    state_dir: Path, dsn: str, *, stdout: IO[bytes] | int, module: Sequence[str] = ("leasehold",), **settings: str
) -> AsyncIterator[Process]:
    """A daemon of our own on `state_dir` and `dsn`, with no setting of the caller's environment."""
    ours = {
        "database_url": dsn,
        "state_dir": str(state_dir),
        "log_format": "json",
        "stop_mode": "interrupt",
        **settings,
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
    env |= {f"LEASEHOLD_{name.upper()}": value for name, value in ours.items()}
    command = [*dying_with_us(PYTHON, signal.SIGKILL), "-m", *module, "daemon"]  # alive, it would start another keeper
    process = await open_process(command, stdin=DEVNULL, stdout=stdout, stderr=None, env=env, start_new_session=True)
    async with ended(process, 30):
        yield process


@asynccontextmanager
async def ended(process: Process, patience: float) -> AsyncIterator[None]:
    """When the block is left, however it is left, the process is told to stop, waited for, and gone."""
    try:
        yield
    finally:
        with CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with move_on_after(patience):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def until_ready(client: Client, many: int, *daemons: Process) -> None:
    """Wait until so many workers live; `daemons` are expected to last until then."""
    with fail_after(PATIENCE):
        while len(await client.rows("select from leasehold.workers where state = 'alive'")) < many:
            await sleep(0.05)
            for daemon in daemons:
                if daemon.returncode is not None:
                    raise LeaseholdError(f"the daemon ended with code {daemon.returncode}")
