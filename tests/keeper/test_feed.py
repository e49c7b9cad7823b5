"""What agents are told through their stdin: once by key, in order, and nobody waits for one that does not read."""

import json
import os
import signal
import time

import pytest
from leasehold.keeper import feed
from support.host import alive
from support.keeper import until

pytestmark = pytest.mark.race

FIFO = {"fifo": True}
MEGABYTE = 1 << 20


@pytest.fixture
def keeper(plain_keeper):
    plain_keeper.start()
    return plain_keeper


def tell(caller, run_id, key, text):
    return caller.ask("feed", run_id=run_id, key=key, text=text)


def said(keeper, run_id):
    return keeper.path(run_id, "stdout").read_text()


def test_each_key_is_heard_once_and_in_order(keeper):
    caller = keeper.call()
    caller.sh(1, "cat", stdin=FIFO)
    for number in range(200):
        assert tell(caller, 1, f"key {number}", f"line {number}\n")["taken"] is True
        assert tell(caller, 1, f"key {number // 2}", "again\n")["taken"] is False
    assert caller.run(1)["inputs"] == 200
    assert caller.ask("inputs", run_id=1, keys=["key 3", "no", "key 199"])["taken"] == ["key 3", "key 199"]
    caller.ask("close_stdin", run_id=1)
    assert caller.ended(1)["exit_code"] == 0
    assert said(keeper, 1) == "".join(f"line {number}\n" for number in range(200))


def test_another_daemon_finds_the_keys_of_the_one_before_it(keeper):
    caller = keeper.call()
    caller.sh(1, "cat", stdin=FIFO)
    tell(caller, 1, "init", "hello\n")
    caller.close()
    caller = keeper.call()
    assert tell(caller, 1, "init", "hello\n")["taken"] is False
    assert tell(caller, 1, "next", "you\n")["taken"] is True
    caller.ask("close_stdin", run_id=1)
    caller.ended(1)
    assert said(keeper, 1) == "hello\nyou\n"
    assert caller.ask("inputs", run_id=1, keys=["init", "later"])["taken"] == ["init"], "also when it has ended"


def test_a_reader_that_stops_holds_up_nobody_and_hears_all_of_it_in_the_end(keeper):
    caller = keeper.call()
    caller.sh(1, "read go; cat | cksum; read never", stdin=FIFO)
    caller.sh(2, "cat", stdin=FIFO)
    pid = caller.run(1)["pid"]
    os.kill(pid, signal.SIGSTOP)
    tell(caller, 1, "go", "go\n")
    for number in range(20):
        assert tell(caller, 1, str(number), chr(97 + number) * MEGABYTE)["taken"] is True
        began = time.monotonic()
        tell(caller, 2, str(number), f"{number}\n")
        until(lambda number=number: said(keeper, 2).endswith(f"{number}\n"), "the other one's echo", within=5)
        assert time.monotonic() - began < 2
    os.kill(pid, signal.SIGCONT)
    caller.ask("close_stdin", run_id=1)
    assert caller.ended(1)["exit_code"] == 1
    assert said(keeper, 1).split()[1] == str(20 * MEGABYTE)


def test_what_a_reader_leaves_waiting_is_bounded(keeper):
    caller = keeper.call()
    caller.sh(1, "exec sleep 300", stdin=FIFO)
    answers = [tell(caller, 1, str(number), "x" * 4 * MEGABYTE) for number in range(12)]
    assert [answer["ok"] for answer in answers[:8]] == [True] * 8
    assert {answer["error"] for answer in answers if not answer["ok"]} == {"full"}
    assert tell(caller, 1, "0", "")["taken"] is False, "a key that was taken is known, also when no room is left"
    assert caller.ask("stop", run_id=1, why="cancelled", signals=[])["ok"]
    assert caller.ended(1, within=5)["signal"] == signal.SIGKILL


def test_the_end_of_the_input_comes_behind_what_was_taken(keeper):
    caller = keeper.call()
    caller.sh(1, "until [ -e go ]; do sleep 0.02; done; wc -c", stdin=FIFO)
    tell(caller, 1, "a", "x" * MEGABYTE)
    assert caller.ask("close_stdin", run_id=1)["ok"] and caller.ask("close_stdin", run_id=1)["ok"]
    assert tell(caller, 1, "b", "late")["error"] == "closed"
    (keeper.path(1, "workspace") / "go").touch()
    assert caller.ended(1)["exit_code"] == 0
    assert said(keeper, 1).strip() == str(MEGABYTE)


def test_an_agent_that_dies_with_its_input_unread_is_no_trouble(keeper):
    caller = keeper.call()
    for run_id in range(1, 6):
        caller.sh(run_id, "read one; until [ -e go ]; do sleep 0.02; done; exit 3", stdin=FIFO)
        assert tell(caller, run_id, "one", "one\n" + "x" * 2 * MEGABYTE)["taken"] is True
        (keeper.path(run_id, "workspace") / "go").touch()
    for run_id in range(1, 6):
        assert caller.ended(run_id)["exit_code"] == 3
        assert tell(caller, run_id, "two", "two\n")["error"] == "closed"
        assert tell(caller, run_id, "one", "one\n")["taken"] is False
    fds = len(os.listdir(f"/proc/{keeper.processes[-1].pid}/fd"))
    for run_id in range(6, 16):
        caller.sh(run_id, "exec 0<&-; sleep 0.2", stdin=FIFO)
        tell(caller, run_id, "one", "x" * MEGABYTE)
        caller.ended(run_id)
    assert len(os.listdir(f"/proc/{keeper.processes[-1].pid}/fd")) <= fds


def test_a_stdin_that_its_agent_has_closed_costs_the_keeper_no_time(keeper):
    caller = keeper.call()
    caller.sh(1, "exec 0<&-; echo closed; exec sleep 300", stdin=FIFO)
    until(lambda: said(keeper, 1), "a closed stdin")
    assert tell(caller, 1, "one", "x" * MEGABYTE)["error"] == "closed"
    assert tell(caller, 1, "two", "x")["error"] == "closed"
    assert caller.run(1)["inputs"] == 0, "what surely was not heard was not taken"
    before = cpu_ticks(keeper.processes[-1].pid)
    time.sleep(0.5)
    assert cpu_ticks(keeper.processes[-1].pid) - before < 10


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_agent_that_wrecks_its_directory_is_told_all_the_same(keeper):
    caller = keeper.call()
    caller.sh(1, "rm -f ../stdin; mkfifo ../stdin; ln -s /dev/null ../x; echo up; cat >&2", stdin=FIFO)
    until(lambda: said(keeper, 1), "its vandalism")
    tell(caller, 1, "one", "hello\n")
    caller.ask("close_stdin", run_id=1)
    assert caller.ended(1)["exit_code"] == 0
    assert keeper.path(1, "stderr").read_text() == "hello\n"


def test_any_bytes_can_be_told(keeper):
    caller = keeper.call()
    caller.sh(1, "od -An -tx1 -v", stdin=FIFO)
    tell(caller, 1, "one", b"\x00\xff\xfe\r\n\xed\xa0\x80".decode("utf-8", "surrogateescape") + "\U0001f600")
    caller.ask("close_stdin", run_id=1)
    caller.ended(1)
    assert said(keeper, 1).split() == ["00", "ff", "fe", "0d", "0a", "ed", "a0", "80", "f0", "9f", "98", "80"]


def test_who_has_no_such_stdin_is_told_nothing(keeper):
    caller = keeper.call()
    caller.sh(1, "exec sleep 300", stdin={"text": "prompt"})
    caller.sh(2, "exec sleep 300")
    caller.sh(3, "exit 0", stdin=FIFO)
    caller.ended(3)
    caller.ask("stop", run_id=4, why="cancelled", signals=[])
    errors = [tell(caller, run_id, "k", "x")["error"] for run_id in range(1, 6)]
    assert errors == ["no_fifo", "no_fifo", "closed", "closed", "unknown_run"]
    assert [caller.run(run_id)["inputs"] for run_id in range(1, 5)] == [0] * 4
    assert caller.ask("inputs", run_id=1, keys=["k"])["taken"] == []
    assert caller.ask("inputs", run_id=5, keys=["k"])["error"] == "unknown_run"


def test_after_the_keeper_was_killed_its_agents_are_gone_and_told_nothing(keeper):
    caller = keeper.call()
    pid = caller.sh(1, "cat", stdin=FIFO)["pid"]
    tell(caller, 1, "one", "hello\n")
    keeper.kill()
    keeper.start()
    caller = keeper.call()
    assert not alive(pid) and caller.run(1)["exit"]["why"] == "keeper_lost"
    assert tell(caller, 1, "two", "x")["error"] == "closed"


def test_a_keeper_told_to_stop_waits_for_no_reader(keeper):
    caller = keeper.call()
    caller.sh(1, "exec sleep 300", stdin=FIFO, grace=0.2)
    tell(caller, 1, "one", "x" * 8 * MEGABYTE)
    keeper.processes[-1].terminate()
    assert keeper.processes[-1].wait(10) == 0


BAD = [
    {}, {"key": None}, {"key": 3}, {"key": ""}, {"key": "k" * 257}, {"key": ["k"]}, {"text": None}, {"text": 3}, {"text": ["x"]},
    {"text": "\ud800"}, {"text": {"a": 1}}, {"run_id": "1"}, {"run_id": 0}, {"run_id": True}, {"run_id": 2**70},
]  # fmt: skip


def test_nonsense_is_refused_and_nothing_of_it_is_heard(keeper):
    caller = keeper.call()
    caller.sh(1, "cat", stdin=FIFO)
    for wrong in BAD:
        request = {"run_id": 1, "key": "k", "text": "heard", **wrong} if wrong else {"run_id": 1}
        assert caller.ask("feed", **request)["error"] == "bad_request", wrong
    for wrong in ({}, {"keys": "k"}, {"keys": []}, {"keys": [1]}, {"keys": {"k": 1}}):
        assert caller.ask("inputs", run_id=1, **wrong)["error"] == "bad_request", wrong
    caller.ask("close_stdin", run_id=1)
    assert caller.ended(1)["stdout_bytes"] == 0


def test_keys_are_bounded(keeper, monkeypatch):
    """In this process: a hundred thousand requests would take too long."""
    monkeypatch.setattr(feed, "KEYS", 3)
    reader, writer = os.pipe()
    fed = feed.Feed(writer, feed.Feeds())
    assert [fed.take(key, b"x") for key in "abca"] == [True, True, True, False]
    with pytest.raises(feed.RefusedError) as refused:
        fed.take("d", b"x")
    assert refused.value.code == "too_many"
    fed.drop()
    assert os.read(reader, 9) == b"xxx"
    os.close(reader)


def test_all_that_waits_together_is_bounded(monkeypatch):
    monkeypatch.setattr(feed, "ALL_PENDING", 3 * MEGABYTE)
    feeds, pipes = feed.Feeds(), [os.pipe() for _ in range(3)]
    fed = [feed.Feed(writer, feeds) for _, writer in pipes]
    assert fed[0].take("a", b"x" * MEGABYTE) and fed[1].take("a", b"x" * MEGABYTE)
    with pytest.raises(feed.RefusedError) as refused:
        fed[2].take("a", b"x" * 2 * MEGABYTE)
    assert refused.value.code == "full"
    fed[0].drop()
    assert fed[2].take("a", b"x" * 2 * MEGABYTE), "what was dropped makes room"
    for each in fed:
        each.drop()
    assert feeds.pending == 0
    for reader, _ in pipes:
        os.close(reader)


def test_an_older_daemon_hears_nothing_that_it_does_not_know(keeper):
    """It names the operations that it has, so that a newer daemon knows before it starts an agent."""
    about = keeper.call(hello=False).ask("about")
    assert about["protocol"] == 2 and {"feed", "inputs", "spawn"} <= set(about["operations"])
    assert json.dumps(about)
