"""A keeper that the host refuses something: no descriptors left, an error in one run's round. No agent pays for it."""

import resource
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.host import alive, pids
from support.keeper import KeeperProcess, boottime, until

pytestmark = pytest.mark.race

STUBBORN = """
import sys
from leasehold.keeper.run import Run
act, refused = Run.act, []
def sometimes(self, now, members):
    if self.run_id == 1 and len(refused) < 20:
        refused.append(now)
        raise OSError(5, "Input/output error")
    act(self, now, members)
Run.act = sometimes
sys.argv = sys.argv[6:]
from leasehold.keeper.__main__ import main
sys.exit(main())
"""
"""A keeper that twenty times is given an error by the host when it would act on run 1."""


ROBBED = """
import os, sys
from leasehold.keeper.run import Run
reap = Run.reap
def robbed(self):
    if self.pid is not None and self.status is None:
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass
    return reap(self)
Run.reap = robbed
sys.argv = sys.argv[6:]
from leasehold.keeper.__main__ import main
sys.exit(main())
"""
"""A keeper whose leaders are waited for by somebody else."""


def descriptors(keeper):
    return sorted(int(path.name) for path in Path(f"/proc/{keeper.processes[-1].pid}/fd").iterdir())


@contextmanager
def descriptors_limited(keeper, most):
    """It may have no descriptor with that number or a higher one."""
    pid = keeper.processes[-1].pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        if keeper.processes[-1].poll() is None:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_living_run_costs_no_descriptor(keeper):
    caller = keeper.call()
    before = len(descriptors(keeper))
    for run_id in range(1, 9):
        caller.sh(run_id, "echo up; exec sleep 300")
        until(keeper.path(run_id, "stdout").read_bytes, "the agent")
    until(lambda: len(descriptors(keeper)) <= before, "as many descriptors as before")  # a round has some in between


def test_a_keeper_without_a_free_descriptor_kills_in_time_and_writes_it_down(keeper):
    caller = keeper.call()
    deadline = boottime() + 1.5
    caller.sh(1, "trap '' TERM; setsid sleep 300 & wait", deadline=1.5, grace=0.5)
    other = caller.sh(2, "sleep 300")["pid"]
    have = descriptors(keeper)
    free = next(number for number in range(len(have) + 1) if number not in have)
    with descriptors_limited(keeper, free):
        assert caller.ended(1)["why"] == "deadline" and boottime() < deadline + 3
        until(keeper.path(1, "exit.json").exists, "its record on the disk")
        assert "open files" in caller.sh(3, "exit 0")["exit"]["error"]["message"], "what cannot start says why"
        assert alive(other) and caller.run(2)["state"] == "running"
    caller.sh(4, "exit 4")
    assert caller.ended(4)["exit_code"] == 4


def test_a_keeper_that_can_open_nothing_at_all_looks_again_until_it_can(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "sleep 300", deadline=1.0, grace=0.2)["pid"]
    other = caller.sh(2, "sleep 300")["pid"]
    keeper_pid = keeper.processes[-1].pid
    with descriptors_limited(keeper, 3):
        until(lambda: b"round_failed" in (keeper.directory / "log").read_bytes(), "a round in trouble")
        assert keeper_pid in pids() and keeper.processes[-1].poll() is None
        assert caller.run(2)["state"] == "running"
    assert caller.ended(1)["why"] == "deadline" and not alive(pid)
    assert alive(other)
    said = (keeper.directory / "log").read_bytes().count(b"round_failed")
    assert said < 5, "trouble that goes on is told once"


@pytest.fixture
def kept(tmp_path, request):
    """A keeper as the script makes it."""
    keeper = KeeperProcess(tmp_path / "state", "subreaper", prefix=(sys.executable, "-c", request.param))
    keeper.start()
    yield keeper
    keeper.close()


@pytest.mark.parametrize("kept", [STUBBORN], indirect=True, ids=["stubborn"])
def test_an_error_in_one_runs_round_is_that_runs_trouble_only(kept):
    caller = kept.call()
    first = caller.sh(1, "sleep 300", deadline=1.0, grace=0.5)["pid"]
    caller.sh(2, "sleep 300", deadline=1.0, grace=0.5)
    assert caller.ended(2)["why"] == "deadline"
    assert alive(first), "it is still refused"
    assert caller.ended(1)["why"] == "deadline" and kept.family() == []


@pytest.mark.parametrize("kept", [ROBBED], indirect=True, ids=["robbed"])
def test_a_leader_whose_end_nobody_saw_is_no_success(kept):
    caller = kept.call()
    caller.sh(1, "setsid sleep 300 & exit 3")
    record = caller.ended(1)
    assert (record["state"], record["why"]) == ("exited", "keeper_lost")
    assert record["exit_code"] is None and record["signal"] is None
    assert kept.family() == [], "what it left behind goes all the same"
    caller.sh(2, "sleep 300")
    caller.ask("stop", run_id=2, why="cancelled", signals=[["TERM", 5.0]])
    assert caller.ended(2)["why"] == "cancelled" and caller.run(2)["exit"]["signal"] is None


def test_a_keeper_without_a_descriptor_for_a_client_lets_it_wait_and_does_not_spin(keeper):
    caller = keeper.call()
    caller.sh(1, "sleep 300", deadline=2.0, grace=0.2)
    have = descriptors(keeper)
    free = next(number for number in range(len(have) + 1) if number not in have)
    with descriptors_limited(keeper, free):
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(keeper.directory / "keeper.sock"))
        assert caller.ended(1)["why"] == "deadline"
        said = (keeper.directory / "log").read_bytes().count(b"out_of_descriptors")
        assert 1 <= said < 6, "once a second, not once a turn"
    waiting.settimeout(20)
    waiting.sendall(b'{"id": 1, "op": "about"}\n')
    assert waiting.recv(4096), "it is let in when there is room again"
    waiting.close()
