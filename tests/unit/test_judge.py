"""From how a tree ended to outcome and reason: one table, and what no ending may do."""

from pathlib import Path

import pytest
from leasehold.agents.command import CommandAdapter
from leasehold.models import Exit
from leasehold.runs.judge import ENDED, SPAWN_REASONS, held_to, judge

VOCABULARY = Path(__file__).parents[2] / "sql" / "functions" / "vocabulary.sql"


def ended(why="exit", **facts):
    state = "never_started" if facts.get("error") else "exited"
    return Exit(run_id=7, token="t", state=state, why=why, **facts)


def verdict(why="exit", said=None, **facts):
    adapter = CommandAdapter()
    if said:
        adapter.receive(said)
    return judge(ended(why, **facts), adapter)


@pytest.mark.rule("P59", "PW18", "X24")
@pytest.mark.parametrize(
    ("why", "facts", "outcome", "reason"),
    [
        ("exit", {"exit_code": 0}, "succeeded", None),
        ("exit", {"exit_code": 3}, "failed", "exit_code"),
        ("exit", {"exit_code": 3, "disk_free": 4096}, "interrupted", "disk_full"),
        ("exit", {"signal": 25, "disk_free": 0}, "interrupted", "disk_full"),
        ("exit", {"exit_code": 0, "disk_free": 0}, "succeeded", None),
        ("exit", {"exit_code": 3, "disk_free": 1 << 30}, "failed", "exit_code"),
        ("exit", {"signal": 9}, "failed", "signal"),
        ("exit", {"signal": 9, "usage": {"oom_kills": 1}}, "failed", "oom"),
        ("exit", {"signal": 9, "usage": {"oom_kills": 0}}, "failed", "signal"),
        ("exit", {"error": {"kind": "not_found", "message": "x"}}, "failed", "spawn_not_found"),
        ("exit", {"error": {"kind": "denied", "message": "x"}}, "failed", "spawn_denied"),
        ("exit", {"error": {"kind": "cwd_missing", "message": "x"}}, "failed", "workspace_missing"),
        ("exit", {"error": {"kind": "cwd_denied", "message": "x"}}, "failed", "workspace_denied"),
        ("exit", {"error": {"kind": "disk_full", "message": "x"}}, "interrupted", "disk_full"),
        ("exit", {"error": {"kind": "failed", "message": "x"}}, "failed", "spawn_failed"),
        ("exit", {"error": {"kind": "keeper_older", "message": "x"}}, "failed", "spawn_failed"),
        ("exit", {"error": {"kind": "new in a later keeper"}}, "failed", "spawn_failed"),
        ("cancelled", {"signal": 15}, "cancelled", "cancelled"),
        ("cancelled", {"exit_code": 0}, "cancelled", "cancelled"),
        ("total", {"signal": 9}, "timed_out", "total"),
        ("idle", {"signal": 15}, "timed_out", "idle"),
        ("first_output", {"signal": 15}, "timed_out", "first_output"),
        ("spawn", {}, "timed_out", "spawn"),
        ("prepare", {"signal": 15}, "timed_out", "workspace_timeout"),
        ("output_limit", {"signal": 15}, "failed", "output_limit"),
        ("budget", {"signal": 15}, "blocked", "budget"),
        ("unheard", {"signal": 15}, "failed", "protocol"),
        ("unasked", {"signal": 15}, "blocked", "question"),
        ("session_evicted", {}, "failed", "session_evicted"),
        ("interrupt", {"signal": 15}, "interrupted", "daemon_restart"),
        ("deadline", {"signal": 9}, "interrupted", "lease_lost"),
        ("lost", {"signal": 9}, "interrupted", "lease_lost"),
        ("keeper_lost", {}, "lost", "keeper_lost"),
        ("keeper_stopped", {"signal": 15}, "interrupted", "keeper_lost"),
        ("host_reboot", {}, "lost", "host_reboot"),
        ("daemon_error", {"signal": 15}, "failed", "daemon_error"),
        ("something new", {"signal": 15}, "interrupted", "stopped"),
    ],
)
def test_an_ending_has_one_outcome_and_one_reason(why, facts, outcome, reason):
    found = verdict(why, **facts)
    assert (found.outcome, found.reason) == (outcome, reason)


def test_every_way_of_being_ended_is_in_that_table():
    table = test_an_ending_has_one_outcome_and_one_reason.pytestmark[0].args[1]
    assert set(ENDED) <= {row[0] for row in table}
    assert set(SPAWN_REASONS) <= {row[1].get("error", {}).get("kind") for row in table}


def test_every_reason_is_known_to_the_database():
    known = VOCABULARY.read_text()
    given = {verdict.reason for verdict in ENDED.values()} | set(SPAWN_REASONS.values())
    for reason in given | {"spawn_failed", "exit_code", "signal", "oom", "agent_error", "stopped"}:
        assert f"'{reason}'" in known, f"{reason} has no retry policy"


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        (b'{"type":"result","value":1}', "succeeded", "linger"),
        (b'{"type":"result","ok":false}', "failed", "agent_error"),
    ],
)
def test_the_result_of_an_agent_that_would_not_leave_stands(said, outcome, reason):
    found = verdict("linger", said, signal=15)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert found.message


@pytest.mark.rule("P60")
def test_everything_but_plain_success_says_why_in_words():
    table = test_an_ending_has_one_outcome_and_one_reason.pytestmark[0].args[1]
    for why, facts, outcome, _ in table:
        if facts.get("error") != {"kind": "new in a later keeper"}:
            assert outcome == "succeeded" or verdict(why, **facts).message


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (35, "signal 35"), (64, "SIGRTMAX")])
def test_a_signal_is_named(number, name):
    assert verdict(signal=number).message == f"ended by {name}"


@pytest.mark.rule("PW7")
def test_what_stopped_it_counts_more_than_what_it_says():
    """An agent that answers TERM with exit 0 and a proud last word was cancelled all the same."""
    assert verdict("cancelled", b'{"type":"result","ok":true}', exit_code=0).outcome == "cancelled"


def test_exit_code_zero_is_never_the_outcome_by_itself():
    assert verdict(said=b'{"type":"result","ok":false}', exit_code=0).reason == "agent_error"


def test_what_an_agent_says_of_itself_is_made_storable():
    found = verdict(said=b'{"type":"result","ok":false,"message":"a\\u0000b","x":[NaN,"\\ud800"]}', exit_code=0)
    assert found.message == "a\ufffdb"
    assert found.result == {"x": ["nan", "?"]}


def test_what_the_keeper_says_is_made_storable():
    assert verdict(error={"kind": "not_found", "message": "no program \x00\ud800"}).message == "no program \ufffd?"


@pytest.mark.parametrize(
    ("why", "limit", "then"),
    [
        ("exit", 99, "output_limit"),
        ("exit", 100, "exit"),
        ("exit", None, "exit"),
        ("cancelled", 99, "cancelled"),
        ("lost", 99, "lost"),
    ],
)
def test_who_left_by_itself_with_more_output_than_allowed_was_only_faster_than_our_look(why, limit, then):
    assert held_to(limit, ended(why, exit_code=0, stdout_bytes=60, stderr_bytes=40)).why == then
