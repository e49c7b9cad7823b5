"""Starting a keeper: its code comes from our package and the standard library, whatever lies around where we are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import leasehold
import pytest
from leasehold.processes.launch import keeper_command
from support.host import pids, read
from support.keeper import until

pytestmark = pytest.mark.race

DAEMON = """
import anyio, json, sys
from pathlib import Path
from leasehold.errors import KeeperAway
from leasehold.processes.launch import launch_keeper, try_keeper
from leasehold.processes.link import ask_keeper
async def main(state):
    socket = state / "keeper.sock"
    await launch_keeper(state, socket)
    with anyio.fail_after(20):
        while not socket.exists():
            await anyio.sleep(0.01)
    print(json.dumps(await ask_keeper(socket)))
    print(json.dumps(await try_keeper(state)))
anyio.run(main, Path(sys.argv[1]))
"""
"""What a daemon does, itself safe from the trap, which its keeper inherits."""

PACKAGE = Path(leasehold.__file__).parent
TRAP = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(3)\n"
TRAPPED = ("json", "selectors", "runpy", "argparse", "subprocess", "sitecustomize", "usercustomize", "signal")


@pytest.fixture
def trap(tmp_path):
    """A directory of modules that have the names of others; and where they write that they were imported."""
    directory, mark = tmp_path / "trap", tmp_path / "trapped"
    (directory / "leasehold" / "keeper").mkdir(parents=True)
    for name in (*TRAPPED, "leasehold/__init__", "leasehold/keeper/__init__", "leasehold/keeper/__main__"):
        (directory / f"{name}.py").write_text(TRAP.format(mark=str(mark)))
    return directory, mark


@pytest.fixture
def state(tmp_path):
    """A state directory; a keeper on it is gone afterwards."""
    yield tmp_path / "state"
    for pid in pids():
        if str(tmp_path / "state").encode() in read(f"/proc/{pid}/cmdline"):
            os.kill(pid, 15)
            until(lambda pid=pid: not read(f"/proc/{pid}/cmdline"), "the keeper's end")


def test_nothing_shadows_the_keepers_modules(trap, state):
    directory, mark = trap
    names = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE")
    daemon = [sys.executable, "-I", "-c", DAEMON, str(state)]
    said = subprocess.run(
        daemon,
        cwd=directory,
        env={**os.environ, **dict.fromkeys(names, str(directory))},
        check=True,
        capture_output=True,
    )
    assert [json.loads(line)["version"] for line in said.stdout.splitlines()[-2:]] == [leasehold.__version__] * 2
    assert not mark.exists(), mark.read_text()


def test_the_trap_would_catch(trap):
    directory, mark = trap
    command = [sys.executable, "-m", "leasehold.keeper", "--about", "--state-dir", "/nonexistent"]
    assert subprocess.run(command, cwd=directory, check=False, capture_output=True).returncode == 3
    assert mark.exists()


@pytest.mark.parametrize("kind", ["editable", "copied", "zip path"])
def test_it_is_found_however_the_package_is_installed(tmp_path, kind):
    command = keeper_command(tmp_path / "state")
    assert command[5] == str(PACKAGE.parent)
    if kind != "editable":
        home = tmp_path / ("site packages" if kind == "copied" else "with:colon;and'quote")
        shutil.copytree(PACKAGE, home / "leasehold", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "json.py").write_text("raise SystemExit('shadowed')")  # something else that is installed there
        command[5] = str(home)
    said = subprocess.run([*command, "--about"], check=True, capture_output=True, cwd="/", env={})
    assert json.loads(said.stdout)["containment"]["rung"] in ("cgroup", "subreaper")
    assert not (tmp_path / "state").exists()


def test_the_foreground_command_is_as_isolated(state):
    words = [sys.executable, "-m", "leasehold", "keeper", "--state-dir", str(state)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        until((state / "keeper.sock").exists, "a keeper")
        assert b"\0-I\0-S\0" in read(f"/proc/{process.pid}/cmdline")
    finally:
        process.terminate()
        assert process.wait(20) == 0
