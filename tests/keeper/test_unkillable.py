"""A tree that the keeper cannot kill: said once, killed on slowly, told of when it is gone after all."""

import json
import os
import shutil
import signal

import pytest
from support.host import alive
from support.keeper import KeeperProcess, until

pytestmark = pytest.mark.race

OTHER_UID = 54321
BECOME = f"setpriv --reuid={OTHER_UID} --regid={OTHER_UID} --clear-groups"


@pytest.fixture
def keeper(tmp_path):
    """A keeper that may not signal other users' processes, as every keeper that is not root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("a process that the keeper may not signal can only be made by root, with setpriv")
    prefix = ("setpriv", "--inh-caps=-kill", "--bounding-set=-kill", "--")
    process = KeeperProcess(tmp_path / "state", "subreaper", prefix=prefix)
    process.start("--unkillable-after", "0.3")
    yield process
    process.close()


@pytest.fixture
def stubborn(keeper):
    """A caller, and the pid of a process of run 1 that its keeper cannot kill."""
    caller = keeper.call()
    caller.sh(1, f"{BECOME} sleep 300 & echo $!; wait")
    pid = int(until(lambda: keeper.path(1, "stdout").read_text().strip(), "a pid"))
    until(lambda: os.stat(f"/proc/{pid}").st_uid == OTHER_UID, "another user's process")
    yield caller, pid
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_a_tree_that_does_not_die_is_told_once_and_its_end_later(keeper, stubborn):
    caller, pid = stubborn
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    push = caller.pushed("unkillable", 1)
    assert [(one["pid"], one["name"]) for one in push["processes"]] == [(pid, "sleep")]
    run = caller.run(1)
    assert (run["state"], run["exit"], run["unkillable"]) == ("unkillable", None, push["processes"])
    assert not keeper.path(1, "exit.json").exists()
    assert caller.ask("forget", run_id=1)["error"] == "running"
    os.kill(pid, signal.SIGKILL)
    record = caller.ended(1, within=5)
    assert record["why"] == "cancelled" and "sleep" in record["tree"]
    assert [push["event"] for push in caller.pushes if push.get("run_id") == 1] == ["unkillable", "exited"]


def test_the_others_are_served_meanwhile(keeper, stubborn):
    caller, _pid = stubborn
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    caller.pushed("unkillable", 1)
    caller.sh(2, "echo hello")
    assert caller.ended(2, within=5)["exit_code"] == 0
    assert caller.run(1)["exit"] is None


def test_a_success_with_something_unkillable_left_is_no_end_yet(keeper):
    caller = keeper.call()
    caller.sh(1, f"{BECOME} sleep 300 & echo $!; sleep 0.3; exit 0")
    caller.pushed("unkillable", 1)
    pid = int(keeper.path(1, "stdout").read_text())
    assert caller.run(1)["exit"] is None and alive(pid)
    os.kill(pid, signal.SIGKILL)
    assert caller.ended(1, within=5)["exit_code"] == 0


def test_the_log_says_so_once(keeper, stubborn):
    caller, pid = stubborn
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    caller.pushed("unkillable", 1)
    os.kill(pid, signal.SIGKILL)
    caller.ended(1, within=5)
    lines = [json.loads(line) for line in (keeper.directory / "log").read_text().splitlines()]
    assert [(line["run_id"], line["pids"]) for line in lines if line["event"] == "unkillable"] == [(1, [pid])]


def test_what_died_elsewhere_first_is_not_called_unkillable(keeper):
    caller = keeper.call()
    caller.sh(1, "trap '' TERM; while :; do sleep 0.05; done")
    caller.ask("stop", run_id=1, why="cancelled", signals=[["TERM", 0.6]])
    caller.ended(1, within=5)
    assert {push["event"] for push in caller.pushes} == {"exited"}


def test_a_leader_that_cannot_be_killed_is_killed_on_until_it_can(keeper):
    """The leader itself becomes another user; then it becomes ours again and dies of the next pass."""
    caller = keeper.call()
    pid = caller.sh(1, f"trap '' TERM; exec {BECOME} sh -c 'echo up; while :; do sleep 0.1; done'")["pid"]
    until(lambda: os.stat(f"/proc/{pid}").st_uid == OTHER_UID, "another user's process")
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    caller.pushed("unkillable", 1)
    assert alive(pid) and caller.run(1)["exit"] is None
    os.kill(pid, signal.SIGKILL)
    assert caller.ended(1, within=5)["signal"] == signal.SIGKILL
    assert not keeper.family()
