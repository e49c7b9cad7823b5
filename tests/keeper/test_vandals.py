"""Agents that wreck their own run directory, and a disk that fills up: the keeper and the other runs go on."""

import json
import os
import resource
import shutil

import pytest
from support.keeper import KeeperProcess, until

pytestmark = pytest.mark.race


@pytest.fixture
def keeper(plain_keeper):
    plain_keeper.start()
    return plain_keeper


def goes_on(keeper, caller):
    """It answers, runs and forgets."""
    caller.sh(100, "exit 6")
    assert caller.ended(100, within=5)["exit_code"] == 6
    assert caller.ask("forget", run_id=100)["ok"]
    assert keeper.processes[-1].poll() is None


VANDALS = {
    "directories for files": "rm -f stdout stderr tree.txt; mkdir tree.txt exec_failed stdout exit.json.new tree.txt/x",
    "fifos for files": "rm -f stderr stdout started; mkfifo stderr stdout started exec_failed tree.txt exit.json.new",
    "a pretended failure": "rm -f stderr; mkfifo stderr; echo 126 >exec_failed",
    "links for files": "rm -f stdout stderr; ln -s /dev/zero stderr; ln -s /dev/zero stdout; echo 126 >exec_failed",
    "no directory at all": 'rm -rf "$PWD"',
    "nothing may be read": "chmod 0 *",
    "a locked directory": "chmod 0 .",
}


@pytest.mark.parametrize("code", [126, 0])
@pytest.mark.parametrize("kind", VANDALS)
def test_a_wrecked_run_directory_is_that_runs_own_trouble(keeper, kind, code):
    caller = keeper.call()
    caller.sh(1, f"cd ..; {VANDALS[kind]}; setsid sleep 300 & exit {code}")
    caller.ended(1, within=5)
    goes_on(keeper, caller)
    assert caller.ask("forget", run_id=1)["ok"]
    until(lambda: not keeper.path(1, "").exists(), "a removed directory")
    goes_on(keeper, caller)


@pytest.mark.parametrize("kind", VANDALS)
def test_a_wrecked_run_directory_does_not_hold_up_the_next_keeper(keeper, kind):
    caller = keeper.call()
    caller.sh(1, f"cd ..; {VANDALS[kind]}; echo $$ >/dev/null; exec sleep 300")
    until(lambda: b"sleep" in comm(caller.run(1)["pid"]), "the agent")
    keeper.kill()
    keeper.start()
    assert keeper.family() == []
    goes_on(keeper, keeper.call())


def comm(pid):
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="an ordinary user cannot lock itself in"
)
@pytest.mark.parametrize("kind", VANDALS)
def test_a_keeper_that_is_no_root_removes_what_was_locked(tmp_path, kind):
    capabilities = "-dac_override,-dac_read_search"
    prefix = ("setpriv", f"--inh-caps={capabilities}", f"--bounding-set={capabilities}", "--")
    keeper = KeeperProcess(tmp_path / "state", "subreaper", prefix=prefix)
    keeper.start()
    try:
        caller = keeper.call()
        caller.sh(1, f"mkdir deep; touch deep/x; chmod 0 deep; cd ..; {VANDALS[kind]}; exit 3")
        caller.ended(1, within=5)
        assert caller.ask("forget", run_id=1)["ok"]
        until(lambda: [path.name for path in keeper.directory.glob("trash*")] == [], "an empty bin")
        goes_on(keeper, caller)
    finally:
        keeper.close()


def test_a_full_disk_loses_no_end(keeper):
    caller = keeper.call()
    caller.sh(1, "setsid sleep 300 & read word; exit 4", stdin={"fifo": True})
    until(lambda: "sleep" in caller.ask("look", run_id=1)["tree"], "its child")
    pid = keeper.processes[-1].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))  # from here on every write to a file fails
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    record = caller.ended(1, within=5)
    assert record["why"] == "cancelled" and "sleep" in record["tree"]
    assert caller.pushes[-1]["exit"] == record
    refused = caller.sh(2, "echo never")
    assert refused["exit"]["state"] == "never_started"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert json.loads(until(lambda: read(keeper.path(1, "exit.json")), "a written record", within=5)) == record
    goes_on(keeper, caller)


def read(path):
    return path.read_text() if path.exists() else ""
