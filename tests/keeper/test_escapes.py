"""Every way to get away from a run that we know of, on every rung, several runs alive at once.

For each kind: what a run that is stopped, a run that ends by itself and a run whose deadline passes leaves behind is
looked for from outside, by the tag in argv of all it started. What a rung does not claim to catch, it says.
"""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from support.host import cmdline, pids, read
from support.keeper import KeeperProcess, until

pytestmark = pytest.mark.race

ESCAPER = Path(__file__).parents[1] / "support" / "escaper.py"
KINDS = (
    "plain", "setpgid", "setsid", "stopped", "daemon", "clean daemon", "namespaces", "chain", "clean chain",
    "ten chains", "main thread gone", "own subreaper",
)  # fmt: skip
"""What every rung catches."""


def living(tag):
    """Processes with the tag that are not dead. One whose main thread has left is shown as dead, and is not."""
    found = []
    for pid in pids():
        if tag.encode() in cmdline_of(pid):
            fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if fields and (fields[0] not in b"ZXx" or int(fields[17]) > 1):
                found.append(pid)
    return found


def cmdline_of(pid):
    return cmdline(pid) or b"".join(cmdline(task) for task in tasks(pid))


def tasks(pid):
    try:
        return [f"{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


class Runs:
    """Runs of one kind of escaper under one keeper."""

    def __init__(self, keeper):
        self.keeper = keeper
        self.caller = keeper.call()
        self.tags = {}

    def start(self, run_id, kind, *, deadline=60.0):
        self.tags[run_id] = tag = uuid.uuid4().hex
        argv = [sys.executable, "-I", "-S", str(ESCAPER), kind, tag]
        answer = self.caller.spawn(run_id, *argv, deadline=deadline, grace=0.2)
        assert answer["exit"] is None, answer
        return tag

    def ready(self, run_id):
        until(self.keeper.path(run_id, "workspace/ready").exists, f"a stray of run {run_id}")

    def another_users(self, run_id):
        """Wait until the stray has become another user's."""
        self.ready(run_id)
        until(lambda: any(owner(pid) == 54321 for pid in living(self.tags[run_id])), "another user's process")

    def stop(self, run_id):
        self.caller.ask("stop", run_id=run_id, why="cancelled", signals=[["TERM", 0.1]])
        return self.caller.ended(run_id)

    def finish(self, run_id):
        self.keeper.path(run_id, "workspace/end").touch()
        return self.caller.ended(run_id)

    def gone(self, run_id):
        """Nothing is left, however often one looks: a chain may hide from one look."""
        return not any(living(self.tags[run_id]) for _ in range(5))

    def clear(self):
        for tag in self.tags.values():
            while left := living(tag):
                for pid in left:
                    kill(pid)
            for aside in [root / f"aside-{tag}" for root in self.keeper.group_roots()]:
                if aside.is_dir():
                    until(lambda aside=aside: remove(aside), "an empty group")


def owner(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove(path):
    try:
        path.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def runs(keeper):
    found = Runs(keeper)
    yield found
    found.clear()


def says(caller, words):
    """Does the keeper say that it cannot catch this?"""
    return any(words in sentence for sentence in caller.ask("about")["containment"]["cannot_catch"])


def permitted(kind):
    if kind == "namespaces":
        command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "true"]
        if shutil.which("unshare") is None or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this host permits no user namespaces")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_gets_away_and_nobody_elses_is_touched(runs, kind):
    permitted(kind)
    for run_id in (1, 2, 3):
        runs.start(run_id, kind)
    for run_id in (1, 2, 3):
        runs.ready(run_id)
    assert runs.stop(1)["why"] == "cancelled"
    assert runs.gone(1)
    assert living(runs.tags[2]) and living(runs.tags[3]), "of the others nothing was touched"
    record = runs.finish(2)
    assert (record["why"], record["exit_code"]) == ("exit", 0)
    assert runs.gone(2) and record["swept"] >= 1 and record["tree"]
    assert living(runs.tags[3])
    runs.keeper.processes[-1].terminate()
    assert runs.keeper.processes[-1].wait(20) == 0
    assert runs.gone(3), "a keeper that leaves takes them all along"


def test_nothing_outlives_a_deadline(runs):
    kinds = dict(enumerate(KINDS, start=1))
    for run_id, kind in kinds.items():
        runs.start(run_id, kind, deadline=4.0)
    runs.start(100, "daemon")
    for run_id in kinds:
        assert runs.caller.ended(run_id)["why"] == "deadline"
    assert [kind for run_id, kind in kinds.items() if not runs.gone(run_id)] == []
    assert living(runs.tags[100])


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_keeper_finds_what_its_predecessor_left(runs, kind):
    permitted(kind)
    runs.start(1, kind)
    runs.ready(1)
    runs.keeper.kill()
    bystander = subprocess.Popen(
        [sys.executable, "-I", "-S", str(ESCAPER), "stay", "bystander"], cwd=runs.keeper.directory
    )
    runs.keeper.start()
    assert runs.gone(1)
    assert runs.keeper.call().run(1)["exit"]["why"] == "keeper_lost"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_frozen_group_is_thawed_and_ended(runs):
    if runs.keeper.rung != "cgroup":
        assert not says(runs.caller, "frozen"), (
            "without groups nothing can be frozen; stopped processes are a kind above"
        )
        return
    for run_id, deadline in ((1, 60.0), (2, 60.0), (3, 3.0)):
        runs.start(run_id, "frozen", deadline=deadline)
        runs.ready(run_id)
    assert runs.stop(1)["why"] == "cancelled"
    assert runs.caller.ended(3)["why"] == "deadline"
    assert runs.gone(1) and runs.gone(3) and living(runs.tags[2])


def test_what_moves_to_another_group_is_found_by_what_it_carries(runs):
    if runs.keeper.rung != "cgroup":
        assert not says(runs.caller, "control group"), "without groups there is none to leave"
        return
    for run_id in (1, 2):
        runs.start(run_id, "other cgroup")
        runs.ready(run_id)
    runs.stop(1)
    assert runs.gone(1) and living(runs.tags[2])
    runs.finish(2)
    assert runs.gone(2)


NAMELESS = {"cgroup": ("nameless in another cgroup", "moved itself to another control group"),
            "subreaper": ("nameless daemon", "changed its oom_score_adj, while other runs live")}  # fmt: skip


def test_a_nameless_daemon_is_not_told_apart_and_lives_until_no_run_is_left_that_can_have_started_it(runs):
    kind, words = NAMELESS[runs.keeper.rung]
    runs.start(1, kind)
    runs.ready(1)
    runs.start(2, "plain")
    runs.ready(2)
    runs.start(3, kind)
    runs.ready(3)
    runs.start(4, "plain")
    runs.ready(4)
    runs.stop(1)
    assert runs.gone(1), "when it was born, only its own run lived"
    runs.stop(3)
    assert living(runs.tags[3]) and says(runs.caller, words), "it may be of 2 or 3, and the keeper says so"
    runs.stop(2)
    until(lambda: runs.gone(3), "the end of a stray that no living run can have started", within=5)
    assert living(runs.tags[4])


def test_a_nameless_daemon_in_the_runs_own_group_goes_with_the_group(runs):
    if runs.keeper.rung != "cgroup":
        assert says(runs.caller, "changed its oom_score_adj, while other runs live")
        return
    for run_id in (1, 2):
        runs.start(run_id, "nameless daemon")
        runs.ready(run_id)
    runs.finish(1)
    assert runs.gone(1) and living(runs.tags[2])


def test_a_nameless_daemon_after_the_keepers_death(runs):
    runs.start(1, "nameless daemon")
    runs.ready(1)
    runs.keeper.kill()
    runs.keeper.start()
    if runs.keeper.rung == "cgroup":
        assert runs.gone(1)
    else:
        assert living(runs.tags[1]) and says(runs.keeper.call(), "once the keeper itself was killed")


def test_what_another_service_starts_is_the_services(runs):
    """The service: this test."""
    runs.caller.sh(1, "touch please; while :; do sleep 0.05; done")
    until(runs.keeper.path(1, "workspace/please").exists, "the agent's wish")
    runs.tags[1] = uuid.uuid4().hex
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", str(ESCAPER), "stay", runs.tags[1]], cwd=runs.keeper.directory
    )
    runs.stop(1)
    assert started.poll() is None and says(runs.caller, "what another service starts for an agent")
    started.kill()
    started.wait()


@pytest.fixture(params=["cgroup", "subreaper"])
def weak_runs(request, tmp_path, rungs):
    """Under a keeper that may signal its own user's processes only, as every keeper that is not root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("an agent that becomes another user needs a setuid program, and that needs root and setpriv")
    if request.param not in rungs:
        pytest.skip("this host lets us make no cgroup v2 group")
    process = KeeperProcess(
        tmp_path / "state", request.param, prefix=("setpriv", "--inh-caps=-kill", "--bounding-set=-kill", "--")
    )
    process.start("--unkillable-after", "0.3")
    found = Runs(process)
    yield found
    found.clear()
    process.close()


def test_a_program_of_another_user_is_ended_with_its_group_or_said_to_be_unkillable(weak_runs):
    for run_id in (1, 2):
        weak_runs.start(run_id, "setuid")
        weak_runs.another_users(run_id)
    caller = weak_runs.caller
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    if weak_runs.keeper.rung == "cgroup":
        assert caller.ended(1)["why"] == "cancelled"
        assert weak_runs.gone(1) and not says(caller, "becomes another user")
        assert living(weak_runs.tags[2])
        return
    assert [one["pid"] for one in caller.pushed("unkillable", 1)["processes"]] == living(weak_runs.tags[1])
    assert says(caller, "becomes another user")
    for pid in living(weak_runs.tags[1]):
        kill(pid)
    assert caller.ended(1)["why"] == "cancelled"


def test_what_the_next_keeper_cannot_kill_is_taken_over_and_holds_nobody_up(weak_runs):
    if weak_runs.keeper.rung == "cgroup":
        weak_runs.start(1, "setuid")
        weak_runs.another_users(1)
        weak_runs.keeper.kill()
        weak_runs.keeper.start()
        assert weak_runs.gone(1)
        return
    weak_runs.start(1, "setuid")
    weak_runs.another_users(1)
    weak_runs.keeper.kill()
    weak_runs.keeper.start("--unkillable-after", "0.3")
    caller = weak_runs.keeper.call()
    until(lambda: [one["pid"] for one in caller.run(1)["unkillable"]] == living(weak_runs.tags[1]), "what is left")
    assert (caller.run(1)["state"], caller.run(1)["exit"]) == ("unkillable", None)
    caller.sh(2, "exit 3")
    assert caller.ended(2)["exit_code"] == 3
    assert caller.run(1)["exit"] is None
    for pid in living(weak_runs.tags[1]):
        kill(pid)
    assert caller.ended(1, within=5)["why"] == "keeper_lost"
