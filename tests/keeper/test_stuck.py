"""Processes stuck in the kernel, where SIGKILL waits: their runs are unkillable, and nobody else waits for them."""

import os
import signal
import uuid
from pathlib import Path

import pytest
from support.host import alive, read
from support.keeper import KeeperProcess, until

pytestmark = pytest.mark.race

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def freezer():
    """A group of the old kind: who is frozen in there sleeps in the kernel, and SIGKILL waits too."""
    if not os.access(FREEZER / "cgroup.procs", os.W_OK):
        pytest.skip("NOT TESTED HERE: without the version 1 freezer a process that SIGKILL cannot end is hard to make")
    group = FREEZER / f"leasehold-test-{uuid.uuid4().hex}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    until(lambda: removed(group), "an empty group")


def removed(group):
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture(params=["cgroup", "subreaper"])
def keeper(request, tmp_path, rungs, freezer):
    """A keeper that loses patience soon, and is cleared away after the freezer has let go."""
    if request.param not in rungs:
        pytest.skip("this host lets us make no cgroup v2 group")
    process = KeeperProcess(tmp_path / "state", request.param)
    process.start("--unkillable-after", "0.5")
    yield process
    (freezer / "freezer.state").write_text("THAWED")
    process.close()


def freeze(freezer, pid):
    (freezer / "cgroup.procs").write_text(str(pid))
    until(lambda: frozen(freezer), "a frozen process")


def frozen(freezer):
    """One that was just being started may get half way only: ask again from the beginning."""
    (freezer / "freezer.state").write_text("THAWED")
    (freezer / "freezer.state").write_text("FROZEN")
    return (freezer / "freezer.state").read_text().strip() == "FROZEN"


def has_been_killed(pid):
    """SIGKILL is on its way."""
    lines = dict(line.split(b":", 1) for line in read(f"/proc/{pid}/status").splitlines())
    return any(int(lines.get(name, b"0"), 16) >> (signal.SIGKILL - 1) & 1 for name in (b"SigPnd", b"ShdPnd"))


def test_its_run_is_unkillable_until_it_comes_back(keeper, freezer):
    caller = keeper.call()
    pid = caller.sh(1, "exec sleep 300")["pid"]
    freeze(freezer, pid)
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    left = caller.pushed("unkillable", 1)["processes"]
    assert [(one["pid"], one["state"]) for one in left] == [(pid, "D")]
    assert (caller.run(1)["state"], caller.run(1)["exit"]) == ("unkillable", None)
    caller.sh(2, "exit 3")
    assert caller.ended(2)["exit_code"] == 3, "the others are served meanwhile"
    (freezer / "freezer.state").write_text("THAWED")
    record = caller.ended(1)
    assert (record["why"], record["signal"]) == ("cancelled", signal.SIGKILL)


def test_a_leader_that_ended_well_is_no_success_while_a_child_is_stuck(keeper, freezer):
    caller = keeper.call()
    caller.sh(1, "sleep 300 & echo $!; read word", stdin={"fifo": True})
    pid = int(until(lambda: keeper.path(1, "stdout").read_text().strip(), "a pid"))
    freeze(freezer, pid)
    caller.ask("close_stdin", run_id=1)
    assert [one["pid"] for one in caller.pushed("unkillable", 1)["processes"]] == [pid]
    assert caller.run(1)["exit"] is None
    (freezer / "freezer.state").write_text("THAWED")
    record = caller.ended(1)
    assert (record["state"], record["exit_code"]) == ("exited", 1), record


def test_the_next_keeper_answers_no_hello_while_it_still_hopes_to_kill_it(keeper, freezer):
    pid = keeper.call().sh(1, "exec sleep 300")["pid"]
    freeze(freezer, pid)
    keeper.kill()
    keeper.start("--unkillable-after", "60", wait=False)
    until(lambda: has_been_killed(pid), "the sweep")
    assert alive(pid) and not keeper.answers()
    (freezer / "freezer.state").write_text("THAWED")
    until(keeper.answers, "an answer")
    assert not alive(pid) and keeper.call().run(1)["exit"]["why"] == "keeper_lost"


def test_the_next_keeper_takes_over_what_stays_stuck(keeper, freezer):
    pid = keeper.call().sh(1, "exec sleep 300")["pid"]
    freeze(freezer, pid)
    keeper.kill()
    keeper.start("--unkillable-after", "0.5")
    caller = keeper.call()
    assert (caller.run(1)["state"], caller.run(1)["exit"]) == ("unkillable", None)
    (freezer / "freezer.state").write_text("THAWED")
    assert caller.ended(1)["why"] == "keeper_lost" and not alive(pid)
