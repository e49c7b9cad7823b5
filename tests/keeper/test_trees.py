"""An agent's process tree: started, followed, ended, and nothing of it left, on each rung of containment."""

import json
import signal
import time

import pytest
from support.host import alive
from support.keeper import boottime, until

pytestmark = pytest.mark.race


def said(keeper, run_id, lines):
    path = keeper.path(run_id, "stdout")
    return until(
        lambda: len(path.read_text().split()) >= lines and [int(word) for word in path.read_text().split()], "pids"
    )


def test_a_plain_agent_runs_and_leaves_a_record(keeper):
    caller = keeper.call()
    caller.spawn(1, "sh", "-c", "cat; echo err >&2; pwd; exit 3", stdin={"text": "prompt\n"})
    record = caller.ended(1)
    assert (record["state"], record["why"], record["exit_code"], record["signal"]) == ("exited", "exit", 3, None)
    assert keeper.path(1, "stdout").read_text() == f"prompt\n{keeper.path(1, 'workspace')}\n"
    assert keeper.path(1, "stderr").read_text() == "err\n"
    assert record["stdout_bytes"] == keeper.path(1, "stdout").stat().st_size
    assert json.loads(keeper.path(1, "exit.json").read_text()) == record
    assert caller.pushes[0]["event"] == "exited" and caller.pushes[0]["exit"] == record


def test_a_big_prompt_reaches_an_agent_that_reads_late(keeper):
    caller = keeper.call()
    caller.sh(1, "sleep 0.2; wc -c", stdin={"text": "x" * 1_000_000})
    assert caller.ended(1)["exit_code"] == 0
    assert keeper.path(1, "stdout").read_text().strip() == "1000000"


def test_a_fifo_stays_open_until_it_is_closed(keeper):
    caller = keeper.call()
    caller.sh(1, "cat", stdin={"fifo": True})
    assert caller.ask("feed", run_id=1, key="first", text="hello\n")["taken"]
    until(lambda: keeper.path(1, "stdout").read_text() == "hello\n", "the echo")
    assert caller.run(1)["exit"] is None
    assert caller.ask("close_stdin", run_id=1)["ok"]
    assert caller.ended(1)["exit_code"] == 0


ESCAPES = {
    "children": "sleep 300 & echo $!; sleep 300 & echo $!",
    "ignores TERM": "trap '' TERM HUP; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & sleep 0.1; echo $!",
    "setsid": "setsid sleep 300 & echo $!; setsid sh -c 'echo $$; exec sleep 300' & sleep 0.3",
    "double fork": "(setsid sh -c 'sleep 300 & echo $!; echo $!' &) ; sleep 0.3",
    "clean environment": "(env -i PATH=$PATH setsid sh -c 'sleep 300 & echo $!; echo $!' &) ; sleep 0.3",
    "stopped": "sleep 300 & echo $!; kill -STOP $!; echo $!",
    "holds stdout": "(sleep 300; echo late) & echo $!; echo $!",
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_whatever_an_agent_leaves_behind_is_gone_before_its_record_is_there(keeper, kind):
    caller = keeper.call()
    caller.sh(1, f"{ESCAPES[kind]}; exit 5")
    record = caller.ended(1)
    left = said(keeper, 1, 2)
    assert not [pid for pid in left if alive(pid)], f"{kind} escaped"
    assert (record["why"], record["exit_code"]) == ("exit", 5)
    assert keeper.family() == []


@pytest.mark.rule("P78", "PW9")
@pytest.mark.parametrize("kind", ESCAPES)
def test_a_stop_ends_all_of_it(keeper, kind):
    caller = keeper.call()
    caller.sh(1, f"trap '' TERM; {ESCAPES[kind]}; while :; do sleep 1; done")
    left = said(keeper, 1, 2)
    time.sleep(0.1)  # a tree that has just been made: let the keeper find it as it is
    asked = boottime()
    assert caller.ask("stop", run_id=1, why="cancelled", signals=[["TERM", 0.5]])["ok"]
    record = caller.ended(1, within=5)
    assert 0.4 <= boottime() - asked < 3
    assert not [pid for pid in left if alive(pid)], f"{kind} escaped"
    assert (record["why"], record["signal"]) == ("cancelled", signal.SIGKILL)
    assert "ppid" in keeper.path(1, "tree.txt").read_text()


def test_an_agent_that_obeys_term_ends_with_its_own_code(keeper):
    caller = keeper.call()
    caller.sh(1, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    until(lambda: keeper.path(1, "stdout").read_text() == "up\n", "the agent")
    caller.ask("stop", run_id=1, why="cancelled", signals=[["TERM", 30.0]])
    record = caller.ended(1, within=5)
    assert (record["why"], record["exit_code"]) == ("cancelled", 7)


def test_two_trees_do_not_mix(keeper):
    caller = keeper.call()
    caller.sh(1, "setsid sleep 300 & echo $! $!; wait")
    caller.sh(2, "setsid sleep 300 & echo $! $!; wait")
    (first, _), (second, _) = said(keeper, 1, 2), said(keeper, 2, 2)
    caller.ask("stop", run_id=1, why="cancelled", signals=[["TERM", 0.2]])
    caller.ended(1)
    assert not alive(first) and alive(second) and caller.run(2)["exit"] is None


def test_a_death_by_signal_is_told_apart(keeper):
    caller = keeper.call()
    caller.sh(1, "kill -SEGV $$")
    record = caller.ended(1)
    assert (record["exit_code"], record["signal"]) == (None, signal.SIGSEGV)


@pytest.mark.rule("X24")
@pytest.mark.parametrize(
    ("argv", "cwd", "kind"),
    [
        (["no-such-program"], None, "not_found"),
        (["/no/such/program"], None, "not_found"),
        (["/etc/passwd"], None, "denied"),
        (["true"], "/no/such/directory", "cwd_missing"),
        (["true"], "/etc/passwd", "cwd_missing"),
        (["true", "x" * 3_000_000], None, "failed"),
        (["bad-interpreter"], None, "not_found"),
    ],
)
def test_what_cannot_start_says_why(keeper, tmp_path, argv, cwd, kind):
    if argv == ["bad-interpreter"]:
        script = tmp_path / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        argv = [str(script)]
    caller = keeper.call()
    answer = caller.spawn(1, *argv, cwd=cwd)
    assert answer["ok"], answer
    record = caller.ended(1)
    assert record["state"] == "never_started" and record["error"]["kind"] == kind, record
    assert record["error"]["message"]


def test_an_exit_code_of_a_shell_is_not_mistaken_for_a_failed_start(keeper):
    caller = keeper.call()
    for run_id, code in ((1, 125), (2, 126), (3, 127)):
        caller.sh(run_id, f"exit {code}")
        record = caller.ended(run_id)
        assert (record["state"], record["exit_code"], record["error"]) == ("exited", code, None)


def test_an_agent_gets_the_allow_list_and_its_own_and_no_more(keeper):
    caller = keeper.call()
    caller.spawn(1, "env", env={"MINE": "1"})
    caller.ended(1)
    names = {line.partition("=")[0] for line in keeper.path(1, "stdout").read_text().splitlines()}
    allowed = {
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    }
    assert {"MINE", "LEASEHOLD_RUN_ID", "LEASEHOLD_KEEPER_ID"} <= names
    assert not {name for name in names - allowed if not name.startswith(("LC_", "LEASEHOLD_"))} - {"MINE"}
    assert "MINE" in keeper.path(1, "spec.json").read_text() and '"1"' not in keeper.path(1, "spec.json").read_text()
