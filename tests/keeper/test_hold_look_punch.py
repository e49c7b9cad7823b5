"""What a daemon may ask of a living tree: stand still, go on, say what you are, give back the disk."""

import json
import os
import signal
import sys

import pytest
from support.host import alive, read
from support.keeper import boottime, until

pytestmark = pytest.mark.race

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


def size(keeper, run_id):
    return keeper.path(run_id, "stdout").stat().st_size


def moves(keeper, run_id):
    """Does its output grow?"""
    before = size(keeper, run_id)
    until(lambda: size(keeper, run_id) > before, "growing output")


def still(caller, run_id, looks=3):
    """Nothing that the tree has used changes between looks."""
    seen = [caller.ask("look", run_id=run_id)["cpu_seconds"] for _ in range(looks)]
    return len(set(seen)) == 1


def test_a_held_tree_stands_still_and_goes_on_where_it_stood(keeper):
    caller = keeper.call()
    caller.sh(1, f"{COUNTER} & setsid sh -c '{COUNTER} >&2' & wait")
    moves(keeper, 1)
    assert caller.ask("hold", run_id=1)["held"] is True
    assert caller.run(1)["held"] is True and caller.run(1)["state"] == "running"
    until(lambda: still(caller, 1), "a tree that stands still")
    sizes = size(keeper, 1), keeper.path(1, "stderr").stat().st_size
    for _ in range(30):
        caller.ask("list")
    assert (size(keeper, 1), keeper.path(1, "stderr").stat().st_size) == sizes
    assert caller.ask("hold", run_id=1)["held"] is True, "asking twice changes nothing"
    assert caller.ask("release", run_id=1)["held"] is False
    moves(keeper, 1)
    assert caller.run(1)["held"] is False
    words = keeper.path(1, "stdout").read_text().split()
    assert words == [str(number) for number in range(1, len(words) + 1)]


def test_only_the_held_run_stands_still(keeper):
    caller = keeper.call()
    caller.sh(1, COUNTER)
    caller.sh(2, COUNTER)
    caller.ask("hold", run_id=1)
    moves(keeper, 2)
    caller.ask("release", run_id=1)
    moves(keeper, 1)


def test_release_does_not_wake_what_the_agent_had_stopped_itself(keeper):
    caller = keeper.call()
    caller.sh(1, "sleep 300 & kill -STOP $!; echo $!; while :; do sleep 0.05; done")
    sleeper = int(until(lambda: keeper.path(1, "stdout").read_text().strip(), "a pid"))
    until(lambda: b") T" in read(f"/proc/{sleeper}/stat"), "a stopped child")
    caller.ask("hold", run_id=1)
    caller.ask("release", run_id=1)
    assert b") T" in read(f"/proc/{sleeper}/stat")


def test_a_held_tree_hears_the_first_signal_of_its_end(keeper):
    caller = keeper.call()
    caller.sh(1, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    until(lambda: size(keeper, 1), "the agent")
    caller.ask("hold", run_id=1)
    caller.ask("stop", run_id=1, why="cancelled", signals=[["TERM", 30.0]])
    assert caller.ask("hold", run_id=1)["held"] is False, "what is being ended is not held"
    record = caller.ended(1, within=5)
    assert (record["why"], record["exit_code"]) == ("cancelled", 7)


def test_a_held_tree_is_killed_at_once_and_at_its_deadline(keeper):
    caller = keeper.call()
    for run_id, deadline in ((1, 60.0), (2, 1.5)):
        caller.sh(run_id, "trap '' TERM; setsid sleep 300 & echo up; wait", deadline=deadline, grace=0.5)
        until(lambda run_id=run_id: size(keeper, run_id), "the agent")
        caller.ask("hold", run_id=run_id)
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    assert caller.ended(1, within=5)["signal"] == signal.SIGKILL
    assert caller.ended(2, within=5)["why"] == "deadline"
    assert keeper.family() == []


def test_a_look_tells_who_is_there_and_what_they_used(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "while :; do :; done & cat /dev/zero | head -c 3000000 >/dev/null; echo up; exec sleep 300")[
        "pid"
    ]
    until(lambda: size(keeper, 1), "the agent")
    seen = until(
        lambda: (found := caller.ask("look", run_id=1)) and found["cpu_seconds"] > 0.1 and found, "some CPU time"
    )
    byname = {one["name"]: one for one in seen["processes"]}
    assert byname["sleep"]["pid"] == pid and byname["sh"]["ppid"] == pid and byname["sh"]["threads"] == 1
    assert [line.split()[-1] for line in seen["tree"].splitlines()[1:]] == ["sleep", "sh"]
    assert seen["tree"].splitlines()[2].endswith("    sh"), "a child stands below its parent"
    before = seen["io_bytes"]
    caller.sh(2, "while :; do echo x; done >/dev/null")
    until(lambda: caller.ask("look", run_id=2)["io_bytes"] > 10_000, "bytes moved")
    assert caller.ask("look", run_id=1)["io_bytes"] == before
    assert caller.ask("look", run_id=99)["error"] == "unknown_run"


SHORT = "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'"


def test_a_silent_build_of_short_processes_is_seen_to_work_and_counted_once(keeper):
    caller, began = keeper.call(), boottime()
    caller.sh(1, f"while :; do {SHORT}; done")

    def used():
        return caller.ask("look", run_id=1)["cpu_seconds"]

    until(lambda: used() > 1.5, "the CPU time of processes that are gone", within=10)
    assert used() <= boottime() - began + 0.2, "one at a time, they cannot use more than the time that passed"


def test_orphans_that_died_are_still_counted(keeper):
    caller = keeper.call()
    burn = "import time\nwhile time.process_time() < 1.5: pass"
    caller.sh(1, f"(setsid {sys.executable} -I -S -c '{burn}' &); exec sleep 300")

    def alone():
        seen = caller.ask("look", run_id=1)
        return [one["name"] for one in seen["processes"]] == ["sleep"] and seen["cpu_seconds"] > 0.1 and seen

    assert 1.4 < until(alone, "the orphan's end")["cpu_seconds"] < 2.5


def test_a_tree_too_large_to_tell_is_cut(keeper):
    caller = keeper.call()
    caller.sh(1, "i=0; while [ $i -lt 450 ]; do sleep 300 & i=$((i+1)); done; echo up; wait")
    until(lambda: size(keeper, 1), "the agent")
    seen = caller.ask("look", run_id=1)
    assert len(seen["processes"]) == 451
    assert len(seen["tree"]) <= 16384 and seen["tree"].endswith("451 processes in all\n")
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    record = caller.ended(1)
    assert len(record["tree"]) <= 16384 and "sleep" in record["tree"]


def test_punched_ranges_give_the_disk_back_and_keep_every_offset(keeper):
    caller = keeper.call()
    caller.sh(1, "head -c 4194304 /dev/zero | tr '\\0' x; while [ ! -e go ]; do sleep 0.02; done; echo end")
    path = keeper.path(1, "stdout")
    until(lambda: path.stat().st_size == 4194304, "4 MiB")
    before = path.stat().st_blocks
    if not caller.ask("punch", run_id=1, stream="stdout", start=0, end=4_000_000)["punched"]:
        pytest.skip("this file system cannot punch holes")
    assert path.stat().st_blocks < before / 8
    keeper.path(1, "workspace/go").touch()
    assert caller.ended(1)["stdout_bytes"] == 4194304 + 4
    held = path.read_bytes()
    assert held[:4_000_000] == bytes(4_000_000)
    assert held[4_000_000:] == b"x" * (4194304 - 4_000_000) + b"end\n"


@pytest.mark.parametrize(
    "words",
    [
        {"stream": "stdin", "start": 0, "end": 1},
        {"stream": "../../secret", "start": 0, "end": 1},
        {"stream": "stdout", "start": 5, "end": 1},
        {"stream": "stdout", "start": -1, "end": 1},
        {"stream": "stdout", "start": 0},
    ],
)
def test_a_punch_that_makes_no_sense_is_refused(keeper, words):
    caller = keeper.call()
    caller.sh(1, "echo hello; sleep 300")
    until(lambda: size(keeper, 1), "output")
    assert caller.ask("punch", run_id=1, **words)["error"] == "bad_request"
    assert keeper.path(1, "stdout").read_text() == "hello\n"


def test_a_punch_past_the_end_makes_nothing(keeper):
    caller = keeper.call()
    caller.sh(1, "echo hello; sleep 300")
    until(lambda: size(keeper, 1), "output")
    assert caller.ask("punch", run_id=1, stream="stdout", start=100, end=200)["punched"] is False
    assert keeper.path(1, "stdout").read_text() == "hello\n"


def test_a_punch_follows_no_link_that_an_agent_put_there(keeper, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"x" * 100_000)
    caller = keeper.call()
    caller.sh(1, f"rm ../stdout; ln -s {victim} ../stdout; touch done; sleep 300")
    until(keeper.path(1, "workspace/done").exists, "the link")
    assert caller.ask("punch", run_id=1, stream="stdout", start=0, end=50_000)["punched"] is False
    assert victim.read_bytes() == b"x" * 100_000


def test_a_record_tells_of_the_disk_and_of_what_was_killed(keeper):
    caller = keeper.call()
    caller.sh(1, "exit 0")
    record = caller.ended(1)
    there = os.statvfs(keeper.directory)
    assert record["tree"] is None
    assert abs(record["disk_free"] - there.f_bavail * there.f_frsize) < 1 << 30
    caller.sh(2, "setsid sleep 301 & setsid sleep 302 & sleep 0.2")
    record = caller.ended(2)
    assert record["tree"].count("sleep") == 2 and record["swept"] >= 2
    assert keeper.path(2, "tree.txt").read_text() == record["tree"]
    assert json.loads(keeper.path(2, "exit.json").read_text()) == record


def test_a_hold_of_what_is_not_there_is_answered(keeper):
    caller = keeper.call()
    assert caller.ask("hold", run_id=5)["error"] == "unknown_run"
    caller.sh(1, "exit 0")
    caller.ended(1)
    assert caller.ask("hold", run_id=1)["held"] is False
    assert caller.ask("release", run_id=1)["ok"]
    assert caller.ask("look", run_id=1)["processes"] == []


def test_a_tree_that_is_held_while_it_multiplies_stands_still_in_the_end(keeper):
    caller = keeper.call()
    caller.sh(1, "echo up; i=0; while [ $i -lt 300 ]; do sh -c 'while :; do sleep 0.01; done' & i=$((i+1)); done; wait")
    until(lambda: size(keeper, 1), "the agent")
    caller.ask("hold", run_id=1)
    until(lambda: still(caller, 1), "a tree that stands still", within=10)
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    caller.ended(1)
    assert keeper.family() == []


def test_a_keeper_that_holds_answers_in_time(keeper):
    caller = keeper.call()
    pids = [caller.sh(run_id, "while :; do sleep 0.01; done")["pid"] for run_id in range(1, 21)]
    began = boottime()
    assert all(caller.ask("hold", run_id=run_id)["held"] for run_id in range(1, 21))
    assert boottime() - began < 5
    assert all(alive(pid) for pid in pids)
