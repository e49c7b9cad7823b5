"""The protocol between daemon and keeper: deadlines, epochs, restarts, and what a bad client can do (nothing)."""

import json
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from support.host import alive
from support.keeper import Caller, KeeperProcess, boottime, until

pytestmark = pytest.mark.race


@pytest.fixture
def keeper(plain_keeper):
    plain_keeper.start()
    return plain_keeper


def test_a_passed_deadline_ends_the_tree_softly_then_hard(keeper):
    caller = keeper.call()
    deadline = boottime() + 1.5
    caller.sh(1, "trap 'echo term' TERM; echo up; while :; do sleep 0.05; done", deadline=1.5, grace=0.7)
    record = caller.ended(1)
    assert boottime() - deadline < 1
    assert (record["why"], record["signal"]) == ("deadline", signal.SIGKILL)
    assert keeper.path(1, "stdout").read_text() == "up\nterm\n"
    assert record["ended_at"] - record["started_at"] <= 1.9


def test_extend_moves_a_deadline_forward_and_never_back(keeper):
    caller = keeper.call()
    caller.sh(1, "sleep 300", deadline=2)
    later = boottime() + 60
    assert caller.ask("extend", runs=[1, 99], deadline=later)["unknown"] == [99]
    caller.ask("extend", runs=[1], deadline=boottime() + 1)
    assert caller.run(1)["deadline"] == later


def test_a_spawn_whose_deadline_has_passed_is_refused_and_recorded(keeper):
    caller = keeper.call()
    caller.sh(1, "echo never >&2", deadline=-1.0)
    record = caller.ended(1)
    assert (record["state"], record["why"]) == ("never_started", "deadline")
    assert keeper.path(1, "stderr").read_text() == ""


@pytest.mark.rule("P93")
def test_a_run_id_is_started_once_whatever_is_asked(keeper):
    caller = keeper.call()
    first = caller.sh(1, "sleep 300")
    again = caller.sh(1, "echo other")
    assert (again["pid"], again["start_time"]) == (first["pid"], first["start_time"])
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    record = caller.ended(1)
    assert caller.sh(1, "echo other")["exit"] == record


def test_a_stop_before_the_spawn_leaves_a_tombstone(keeper):
    caller = keeper.call()
    assert caller.ask("stop", run_id=7, why="cancelled", signals=[])["state"] == "exited"
    answer = caller.sh(7, "echo started")
    assert (answer["exit"]["state"], answer["exit"]["why"]) == ("never_started", "cancelled")


def test_forget_removes_the_directory_but_never_of_a_living_run(keeper):
    caller = keeper.call()
    caller.sh(1, "sleep 300")
    assert caller.ask("forget", run_id=1)["error"] == "running"
    caller.ask("stop", run_id=1, why="cancelled", signals=[])
    caller.ended(1)
    assert caller.ask("forget", run_id=1)["ok"] and caller.ask("forget", run_id=1)["ok"]
    assert caller.run(1) is None and not keeper.path(1, "").exists()


def test_a_new_hello_supersedes_and_drops_what_the_old_one_had_sent(keeper):
    old = keeper.call()
    life = old.hello()
    new = keeper.call()
    spawn = {
        "op": "spawn",
        "run_id": 1,
        "token": "t",
        "argv": ["sleep", "300"],
        "deadline": boottime() + 60,
        "grace": 1,
    }
    with suppress(BrokenPipeError):  # its bytes may be refused by the kernel already
        old.socket.sendall(json.dumps(spawn).encode() + b"\n")
    assert json.loads(old.file.readline()) == {"event": "superseded"}
    assert old.file.readline() == b""
    assert new.ask("list")["runs"] == []
    stale = Caller(keeper.socket)
    keeper.callers.append(stale)
    assert stale.hello(life=life["life"], epoch=life["epoch"])["error"] == "superseded"


def test_nothing_is_done_before_hello(keeper):
    caller = keeper.call(hello=False)
    for op in ("list", "spawn", "stop", "extend", "forget", "feed", "inputs", "close_stdin", "remove"):
        assert caller.ask(op)["error"] == "no_hello"
    assert caller.ask("about")["containment"]["rung"] == "subreaper"
    assert caller.ask("hello", protocol=99)["error"] == "protocol"


def test_agents_outlive_a_daemon_that_dies_until_their_deadline(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "sleep 300", deadline=1.2, grace=0.2)["pid"]
    caller.socket.close()
    assert alive(pid)
    until(lambda: not alive(pid), "the deadline", within=5)
    assert keeper.call().ended(1)["why"] == "deadline"


@pytest.mark.rule("X15")
def test_a_starting_keeper_sweeps_its_predecessors_trees_before_it_answers(keeper):
    caller = keeper.call()
    caller.sh(1, "setsid sleep 300 & echo $!; sleep 300")
    caller.sh(2, "exit 4")
    caller.ended(2)
    stray = until(lambda: keeper.path(1, "stdout").read_text().split(), "a child")
    keeper.kill()
    assert alive(int(stray[0]))
    keeper.start()
    found = {run["run_id"]: run["exit"] for run in keeper.call().ask("list")["runs"]}
    assert (found[1]["why"], found[2]["exit_code"]) == ("keeper_lost", 4)
    assert not alive(int(stray[0])) and keeper.family() == []


def test_a_second_keeper_on_the_state_directory_refuses(keeper):
    first, second = keeper.processes[-1], keeper.start(wait=False)
    assert second.wait(10) == 1
    assert "another keeper" in (keeper.directory / "log").read_text()
    assert keeper.answers(first.pid)


def test_term_ends_the_agents_first(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "sleep 300")["pid"]
    keeper.processes[-1].terminate()
    assert keeper.processes[-1].wait(10) == 0
    assert not alive(pid)
    assert json.loads(keeper.path(1, "exit.json").read_text())["why"] == "keeper_stopped"
    assert not keeper.socket.exists()


def test_an_idle_keeper_leaves_by_itself(tmp_path):
    process = KeeperProcess(tmp_path / "idle", "subreaper")
    try:
        process.start("--exit-when-idle-after", "0.2")
        assert process.processes[-1].wait(15) == 0
    finally:
        process.close()


def test_garbage_is_answered_and_harms_nobody(keeper):
    caller = keeper.call()
    for line in (
        b"not json\n",
        b"[]\n",
        b'{"op": 3}\n',
        b'{"op": "no such"}\n',
        b"\xff\xfe\n",
        b'{"op":"spawn","run_id":-1}\n',
        b"[" * 100_000 + b"\n",
    ):
        caller.socket.sendall(line)
        answer = json.loads(caller.file.readline())
        assert answer["ok"] is False and answer["message"]
    assert caller.spawn(1, "true", env={"A=B": "x"})["error"] == "bad_request"
    assert caller.spawn(1, "true", env={"A": "x\0"})["error"] == "bad_request"
    assert caller.ask("stop", run_id=1, why="x", signals=[["NO", 1]])["error"] == "bad_request"
    assert caller.ask("feed", run_id=1, key="k", text=7)["error"] in ("bad_request", "unknown_run")
    assert caller.ask("inputs", run_id="1", keys=["k"])["error"] == "bad_request"
    assert caller.ask("list")["runs"] == []


def test_a_client_that_never_reads_does_not_stop_the_keeper(keeper):
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(str(keeper.socket))
    deaf.setblocking(False)
    try:
        while True:
            deaf.send(b'{"op": "about"}\n' * 1000)
    except BlockingIOError:
        assert keeper.call().ask("list")["ok"]
    finally:
        deaf.close()


def test_a_path_too_long_for_a_socket_works(tmp_path):
    process = KeeperProcess(tmp_path / ("long" * 25) / ("path" * 10), "subreaper")
    try:
        process.start(wait=False)
        until(process.socket.exists, "the socket")
    finally:
        process.close()


def test_the_keeper_is_small(keeper):
    status = map(str.split, Path(f"/proc/{keeper.processes[-1].pid}/status").read_text().splitlines())
    resident = next(int(words[1]) for words in status if words[0] == "VmRSS:")
    assert resident < 24 * 1024, f"{resident} kB"
