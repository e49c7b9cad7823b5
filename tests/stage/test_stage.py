"""A stage is not noticed: the agent has its files and its environment, and how the agent ends is how the run ends."""

import os
import signal
import subprocess
import time

import pytest
from leasehold.models import Command
from leasehold.workspaces.place import Place


@pytest.mark.rule("P52")
def test_the_agent_works_in_a_worktree_on_a_branch_of_its_own(stage, repository):
    assert stage.sh("pwd; git branch --show-current; cat README.md") == 0
    assert stage.said() == f"{stage.tree()}\nleasehold/1/task\nread me\n"
    assert stage.report["workspace"]["base"] == "main"
    assert stage.report["workspace"]["base_commit"] == repository.git("rev-parse", "main")
    assert repository.git("branch", "--format=%(refname:short)") == "main", "the repository itself is left alone"


@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 255])
def test_its_exit_status_is_the_agents(stage, status):
    assert stage.sh(f"exit {status}") == status
    assert stage.report["phase"] == "over"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_it_dies_by_the_signal_that_killed_the_agent(stage, number):
    assert stage.sh(f"kill -{int(number)} $$") == -number


def test_what_a_signal_to_all_means_is_the_agents_business(stage):
    process = stage.begin("sh", "-c", "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(lambda: "ready" in stage.said())
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(20) == 7
    assert stage.said() == "ready\nheard\n"
    assert stage.report["phase"] == "over"


def test_an_agent_inherits_no_deaf_ear(stage):
    mask = "import signal; print([signal.getsignal(n) == signal.SIG_DFL for n in (15, 1)], signal.getsignal(2))"
    assert stage.python(mask) == 0
    assert stage.said().startswith("[True, True] <built-in function default_int_handler>")


def test_it_reads_the_runs_stdin_and_its_plan_is_not_in_its_environment(stage):
    assert stage.sh("cat; env | grep -c LEASEHOLD_STAGE") == 1
    assert stage.said() == "0\n"


@pytest.mark.parametrize(
    ("argv", "status", "kind"), [(["no-such-agent"], 127, "not_found"), (["/etc/hostname"], 126, "denied")]
)
def test_an_agent_that_cannot_be_started_is_told_apart_from_one_that_failed(stage, argv, status, kind):
    assert stage.begin(*argv).wait(20) == status
    assert stage.failed["kind"] == kind and stage.failed["step"] == "agent"


def test_a_plan_that_makes_no_sense_ends_before_the_agent(stage):
    assert stage.begin("sh", "-c", "echo never", plan={"workspace": 3}).wait(20) == 125
    assert stage.said() == "" and "plan" in stage.said("stderr")


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; sleep 2"])
def test_who_is_stopped_while_it_makes_ready_starts_no_agent(stage, script):
    process = stage.begin("sh", "-c", "echo never", prepare=[["sh", "-c", f"echo begun; {script}"]])
    wait_for(lambda: "begun" in stage.said("stderr"))
    for pid in [process.pid, *children(process.pid)]:
        os.kill(pid, signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert stage.said() == "" and stage.failed["kind"] == "stopped"


def test_without_a_workspace_it_works_where_it_was_started(stage):
    stage.run = stage.directory / "runs" / "1"
    process = stage.begin("pwd", plan={"run_directory": str(stage.directory / "runs" / "1")})
    assert process.wait(20) == 0
    assert stage.said() == f"{stage.directory}\n"


def test_an_agent_that_takes_the_run_directory_away_ends_as_it_ends(stage):
    assert stage.sh(f"rm -rf {stage.directory}/runs; exit 7") == 7


def test_a_plan_is_longer_than_a_variable_may_be(stage):
    text = '"' * 60_000
    run, own = stage.directory / "runs" / "1", stage.directory / "sessions" / "1"
    run.mkdir(parents=True)
    config = {"dir": str(own), "env": {}, "files": {f"{n}.toml": text for n in range(4)}}
    command = Place(str(run), "run", config=config).dressed(Command(argv=("env",)), run)
    process = subprocess.run(
        command.argv, env={**os.environ, **command.env}, capture_output=True, timeout=20, check=False
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"LEASEHOLD_STAGE" not in process.stdout
    assert [(own / f"{n}.toml").read_text() == text for n in range(4)] == [True] * 4


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def wait_for(fact):
    until = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.01)
