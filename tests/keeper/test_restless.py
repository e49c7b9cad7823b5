"""Groups below a run's own that come and go while the keeper looks, and a round that meets an error of the host."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from leasehold.keeper.containment import Group
from support.host import alive
from support.keeper import until

pytestmark = pytest.mark.race

RESTLESS = """
import os, sys
from pathlib import Path
own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
top = next(path for path in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")) if (path / "cgroup.procs").exists())
group = top / own.strip("/")
print("up", flush=True)
while True:
    names = [group / f"{number}" for number in range(20)]
    for name in names:
        (name / "below").mkdir(parents=True)
    for name in names:
        (name / "below").rmdir()
        name.rmdir()
"""


@pytest.fixture
def restless(tmp_path):
    """A group of plain directories, those below it made and removed all the time."""
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    done = threading.Event()

    def restlessly():
        while not done.is_set():
            for number in range(20):
                (tmp_path / str(number) / "below").mkdir(parents=True)
            for number in range(20):
                (tmp_path / str(number) / "below").rmdir()
                (tmp_path / str(number)).rmdir()

    thread = threading.Thread(target=restlessly)
    thread.start()
    yield Group(tmp_path, 1)
    done.set()
    thread.join()


def test_groups_that_vanish_while_we_look_hide_nobody_and_break_nothing(restless):
    for _ in range(500):
        assert restless.pids() == [1, 2]


@pytest.fixture
def deep(tmp_path):
    """Groups below groups, more than Python calls may be nested."""
    group = Group(tmp_path / "run-1", 1)
    group.path.mkdir()
    for depth in range(1, 1500):
        Path(f"{group.path}{'/x' * depth}").mkdir()
    yield group
    subprocess.run(["rm", "-rf", "--", str(group.path)], check=True)


def test_groups_deeper_than_any_recursion_are_looked_at_and_removed(deep):
    assert deep.pids() == []
    assert deep.remove() and not deep.path.exists()


def test_an_agent_that_makes_and_removes_groups_all_the_time_harms_nobody(keeper):
    if keeper.rung != "cgroup":
        pytest.skip("without a group of its own there is none to make one below")
    caller = keeper.call()
    other = caller.sh(2, "sleep 300")["pid"]
    caller.spawn(1, sys.executable, "-I", "-S", "-c", RESTLESS)
    until(lambda: keeper.path(1, "stdout").stat().st_size, "the agent")
    for _ in range(200):
        assert caller.ask("look", run_id=1)["ok"]
        assert caller.ask("hold", run_id=1)["ok"] and caller.ask("release", run_id=1)["ok"]
    assert alive(other) and keeper.processes[-1].poll() is None
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    assert caller.ended(1)["why"] == "cancelled"
    assert caller.run(2)["state"] == "running"
