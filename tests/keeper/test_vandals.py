"""Agents that wreck their own run directory, and a disk that fills up: the keeper and the other runs go on."""

import json
import os
import resource
import shutil
import subprocess

import pytest
from support.keeper import KeeperProcess, until

pytestmark = pytest.mark.race


@pytest.fixture
def keeper(plain_keeper):
    plain_keeper.start()
    return plain_keeper


@pytest.fixture
def poor_keeper(tmp_path):
    """One that may not go where modes say no, as every keeper that is not root."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root is let in everywhere, but for what setpriv takes from it")
    capabilities = "-dac_override,-dac_read_search"
    prefix = ("setpriv", f"--inh-caps={capabilities}", f"--bounding-set={capabilities}", "--")
    keeper = KeeperProcess(tmp_path / "state", "subreaper", prefix=prefix if os.geteuid() == 0 else ())
    keeper.start()
    yield keeper
    keeper.close()


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


@pytest.mark.parametrize("kind", VANDALS)
def test_a_keeper_that_is_no_root_removes_what_was_locked(poor_keeper, kind):
    caller = poor_keeper.call()
    caller.sh(1, f"mkdir deep; touch deep/x; chmod 0 deep; cd ..; {VANDALS[kind]}; exit 3")
    caller.ended(1, within=5)
    assert caller.ask("forget", run_id=1)["ok"]
    until(lambda: [path.name for path in poor_keeper.directory.glob("trash*")] == [], "an empty bin")
    goes_on(poor_keeper, caller)


LOCKED = "mkdir -p one/deep/deeper two; touch one/deep/deeper/x; chmod 0 one/deep/deeper one/deep one"


def test_what_agents_have_locked_in_a_conversation_is_removed_as_their_user(poor_keeper):
    sessions = poor_keeper.directory / "sessions"
    sessions.mkdir()
    subprocess.run(["sh", "-c", LOCKED], cwd=sessions, check=True)
    caller = poor_keeper.call()
    for _ in range(2):
        assert caller.ask("remove", path="sessions/one")["ok"], "gone already is fine"
    until(lambda: [path.name for path in poor_keeper.directory.glob("trash*")] == [], "an empty bin")
    assert [path.name for path in sessions.iterdir()] == ["two"]
    goes_on(poor_keeper, caller)


@pytest.mark.parametrize(
    "path", ["sessions", "sessions/../x", "/etc/x", "runs/7", "sessions//x", "sessions/.", "x/y", "sessions/x\0"]
)
def test_no_path_leads_the_keeper_out_of_the_rooms_of_agents(keeper, path):
    (keeper.directory / "x").mkdir()
    assert keeper.call().ask("remove", path=path)["error"] == "bad_request"
    assert (keeper.directory / "x").is_dir()


def test_no_link_leads_it_there_either(keeper, tmp_path):
    (tmp_path / "treasure" / "deep").mkdir(parents=True)
    (keeper.directory / "sessions").mkdir()
    (keeper.directory / "sessions" / "link").symlink_to(tmp_path / "treasure")
    caller = keeper.call()
    for path in ("sessions/link", "sessions/link/deep"):
        assert caller.ask("remove", path=path)["error"] == "failed"
    assert (tmp_path / "treasure" / "deep").is_dir()


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
