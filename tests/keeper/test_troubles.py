"""A keeper in trouble itself: stopped, killed in the middle of a spawn, its disk slow or full, its log read by nobody."""

import json
import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.host import alive, read
from support.keeper import KeeperProcess, boottime, until

pytestmark = pytest.mark.race

SLOW_DISK = """
import sys, time
from leasehold.keeper.rundir import RunDirectory
write = RunDirectory.write_exit
def slowly(self, record):
    time.sleep(1)
    write(self, record)
RunDirectory.write_exit = slowly
sys.argv = sys.argv[6:]
from leasehold.keeper.__main__ import main
sys.exit(main())
"""
"""A keeper whose every exit record takes a second to write."""

ESCAPER = str(Path(__file__).parents[1] / "support" / "escaper.py")
LOG_TO = "import os, sys; os.dup2(int(sys.argv[1]), 2); os.execv(sys.argv[2], sys.argv[2:])"
"""A keeper whose log goes to that descriptor."""

MEANWHILE = 1.0
"""Seconds that a stopped keeper stands still after a deadline has passed."""


@contextmanager
def stopped(keeper):
    """The keeper stands still in here."""
    pid = keeper.processes[-1].pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: b") T" in read(f"/proc/{pid}/stat"), "a keeper that stands still")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def past(deadline):
    until(lambda: boottime() > deadline, "the deadline")


def send(caller, **request):
    caller.socket.sendall(json.dumps(request).encode() + b"\n")


def hear(caller):
    """The next answer."""
    while "event" in (message := json.loads(caller.file.readline())):
        caller.pushes.append(message)
    return message


def records(keeper):
    return list((keeper.directory / "runs").glob("*/exit.json"))


def test_a_deadline_that_passed_while_the_keeper_stood_still_is_kept_at_once(keeper):
    caller = keeper.call()
    deadline = boottime() + 1.5
    pid = caller.sh(1, "trap '' TERM; setsid sleep 300 & wait", deadline=1.5, grace=0.5)["pid"]
    with stopped(keeper):
        past(deadline + MEANWHILE)
        assert alive(pid), "nobody else ends it"
    record = caller.ended(1)
    assert (record["why"], record["signal"]) == ("deadline", signal.SIGKILL)
    assert keeper.family() == []


def test_an_extension_that_waited_for_a_stopped_keeper_is_heard_before_the_deadline_counts(keeper):
    caller = keeper.call()
    deadline, later = boottime() + 4, boottime() + 60
    pid = caller.sh(1, "sleep 300", deadline=deadline - boottime(), grace=0.0)["pid"]
    with stopped(keeper):
        send(caller, op="extend", runs=[1], deadline=later)
        past(deadline + 0.1)
    assert hear(caller)["ok"]
    assert alive(pid) and caller.run(1)["deadline"] == later and caller.run(1)["state"] == "running"


def test_a_spawn_that_waited_past_its_deadline_starts_nothing(keeper):
    caller = keeper.call()
    mark = keeper.directory / "it_ran"
    with stopped(keeper):
        deadline = boottime() + 0.3
        send(caller, op="spawn", run_id=1, token="t", argv=["touch", str(mark)], deadline=deadline, grace=0.1)
        past(deadline)
    assert (hear(caller)["exit"]["state"], caller.run(1)["exit"]["why"]) == ("never_started", "deadline")
    assert keeper.path(1, "started").exists(), "its number is used up"
    assert not mark.exists() and caller.run(1)["cgroup"] is None


@pytest.mark.rule("P93")
@pytest.mark.parametrize("moment", ["spec.json", "workspace", "started", "stdout", "it_ran"])
def test_a_keeper_killed_in_the_middle_of_a_spawn_starts_nothing_twice(keeper, moment):
    for run_id in range(1, 4):
        caller = keeper.call()
        mark = keeper.directory / f"it_ran-{run_id}"
        words = ["sh", "-c", 'echo once >>"$0"; sleep 300', str(mark)]
        awaited = mark if moment == "it_ran" else keeper.path(run_id, moment)
        send(caller, op="spawn", run_id=run_id, token="t", argv=words, deadline=boottime() + 60, grace=0.1)
        until_spinning(awaited.exists)
        keeper.kill()
        used_up = keeper.path(run_id, "started").exists()
        keeper.start()
        assert keeper.family() == []
        again = keeper.call()
        if used_up:
            assert again.run(run_id)["exit"]["why"] == "keeper_lost"
            again.spawn(run_id, *words)
            assert keeper.family() == [], "a run id is used up by its marker"
        else:
            assert again.run(run_id) is None, "as if it had not been asked for"
            again.spawn(run_id, *words)
            until(mark.exists, "the agent")
            again.ask("stop", run_id=run_id, why="cancelled", signals=[])
            again.ended(run_id)
        assert not mark.exists() or mark.read_text() == "once\n"


def until_spinning(fact):
    """Wait without a pause: what happens next takes microseconds."""
    deadline = boottime() + 20
    while not fact():
        assert boottime() < deadline


def test_a_marker_without_a_process_is_a_lost_run_that_never_starts_again(keeper):
    caller = keeper.call()
    caller.sh(1, "exit 0")
    caller.ended(1)
    keeper.kill()
    started = keeper.path(1, "started")
    started.write_text(started.read_text().splitlines()[0] + "\n")  # as a kill between marker and exec leaves it
    keeper.path(1, "exit.json").unlink()
    keeper.start()
    assert keeper.call().sh(1, "echo again")["exit"]["why"] == "keeper_lost"
    assert keeper.family() == []


def test_a_disk_that_is_full_once_the_agent_lives_does_not_make_it_a_failed_start(keeper):
    caller = keeper.call()
    limit = len('{"run_id": 1, "token": "", "boot_id": ""}') + 36 + 400 + 20  # the marker fits, what follows does not
    with size_limit(keeper.processes[-1].pid, limit):
        told = caller.sh(1, "setsid sleep 300 & sleep 300", token="t" * 400)
        assert told["exit"] is None and alive(told["pid"])
        assert b"start_time" not in keeper.path(1, "started").read_bytes()
    keeper.kill()
    keeper.start()
    assert keeper.call().ended(1)["why"] == "keeper_lost" and keeper.family() == []


def test_trees_that_die_and_are_born_all_the_time_keep_nobody_waiting(plain_keeper):
    plain_keeper.start()
    caller = plain_keeper.call()
    for run_id in range(1, 3):
        caller.spawn(run_id, sys.executable, "-I", "-S", ESCAPER, "ten chains", f"chains-{run_id}")
    for run_id in range(1, 3):
        until(plain_keeper.path(run_id, "workspace/ready").exists, "chains")
    waits, end = [], boottime() + 2
    while (asked := boottime()) < end:
        caller.ask("about")
        waits.append(boottime() - asked)
    assert max(waits) < 5
    for run_id in range(1, 3):
        caller.ask("stop", run_id=run_id, why="cancelled", signals=[])
    for run_id in range(1, 3):
        caller.ended(run_id)
    assert plain_keeper.family() == []


def test_a_term_that_comes_as_soon_as_it_listens_ends_it_in_order(plain_keeper):
    for _ in range(5):
        process = plain_keeper.start(wait=False)
        until_spinning(plain_keeper.socket.exists)
        process.terminate()
        assert process.wait(20) == 0 and not plain_keeper.socket.exists()


@contextmanager
def size_limit(pid, size):
    """Files may not grow beyond it."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def slow_keeper(tmp_path):
    process = KeeperProcess(tmp_path / "state", "subreaper", prefix=(sys.executable, "-c", SLOW_DISK))
    process.start()
    yield process
    process.close()


def test_no_kill_waits_for_a_slow_disk(slow_keeper):
    caller = slow_keeper.call()
    deadline = boottime() + 3
    pids = [caller.sh(run_id, "sleep 300", deadline=deadline - boottime(), grace=0.0)["pid"] for run_id in range(1, 9)]
    last = caller.sh(9, "sleep 300", deadline=deadline + 1.5 - boottime(), grace=0.0)["pid"]
    until(lambda: not any(map(alive, pids)), "eight dead trees")
    assert len(records(slow_keeper)) <= 1, "every kill came before the second record"
    until(lambda: not alive(last), "a ninth")
    assert len(records(slow_keeper)) <= 5, "a deadline that passed meanwhile waited for one record, not for all"
    assert {caller.ended(run_id)["why"] for run_id in range(1, 10)} == {"deadline"}


def test_a_log_that_nobody_reads_holds_up_no_kill(tmp_path):
    reader, writer = os.pipe()
    keeper = KeeperProcess(tmp_path / "state", "subreaper", prefix=(sys.executable, "-c", LOG_TO, str(writer)))
    try:
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, b"x" * 65536)
        os.set_blocking(writer, True)
        keeper.start(pass_fds=(writer,))
        caller = keeper.call()
        pids = [caller.sh(run_id, "sleep 300", deadline=1.5, grace=0.5)["pid"] for run_id in (1, 2)]
        assert {caller.ended(run_id)["why"] for run_id in (1, 2)} == {"deadline"}
        assert not any(map(alive, pids))
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            while os.read(reader, 65536):
                pass
        caller.sh(3, "exit 0")
        caller.ended(3)
        assert json.loads(os.read(reader, 4096).splitlines()[0])["lines_lost"] > 0
    finally:
        keeper.close()
        os.close(reader)
        os.close(writer)
