"""What `codex exec --json` really says, and what is made of it."""

import pytest
from agents.replay import replay


@pytest.mark.parametrize(
    ("case", "outcome", "reason"),
    [
        ("ok", "succeeded", None),
        ("resume", "succeeded", None),
        ("429once", "succeeded", None),
        ("tool_fails", "succeeded", None),  # a command that fails is the model's business
        ("resume_unknown", "failed", "session_rejected"),
        ("401", "failed", "auth"),
        ("403", "failed", "auth"),
        ("429", "interrupted", "rate_limit"),
        ("quota", "interrupted", "quota"),
        ("overflow", "failed", "context_overflow"),
        ("400", "failed", "agent_error"),
        ("500", "failed", "agent_error"),
        ("drop", "failed", "agent_error"),
        ("garbage", "failed", "agent_error"),
        ("says_nothing", "failed", "empty_output"),
        ("interrupted", "failed", "exit_code"),
    ],
)
def test_how_it_ends(case, outcome, reason):
    verdict = replay(f"codex_exec/{case}").verdict
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_good_run_in_order():
    said = replay("codex_exec/ok")
    assert said.kinds() == ["session", "progress", "tool_call", "tool_call", "message", "usage", "result"]
    begun, ended = said.the("tool_call")
    assert (begun.data["status"], ended.data["status"], ended.data["ok"], ended.data["exit_code"]) == (
        "started",
        "finished",
        True,
        0,
    )
    assert "echo hello > proof.txt" in begun.message
    assert said.verdict.result == {"text": "The proof is written.", "session": said.the("session")[0].data["id"]}


def test_a_resumed_thread_keeps_its_id_and_counts_on_so_its_usage_is_a_counter_of_the_session():
    first, second = (replay(f"codex_exec/{case}") for case in ("ok", "resume"))
    assert second.about["resumed"] == first.the("session")[0].data["id"] == second.the("session")[0].data["id"]
    one, two = (said.the("usage")[0].data for said in (first, second))
    assert (one["input_tokens"], two["input_tokens"]) == (2000, 4000)
    assert one["counter"] == two["counter"] == "session"
    assert one["session"] == two["session"] == second.about["resumed"]


def test_an_error_line_is_a_retry_and_not_the_end():
    said = replay("codex_exec/429once")
    (waits,) = said.the("rate_limited")
    assert (waits.data["attempt"], waits.data["of"]) == (1, 2)
    assert [event.kind for event in replay("codex_exec/500").events].count("retrying") == 2


def test_nothing_but_the_turns_own_end_ends_it():
    assert not replay("codex_exec/401", but=1).adapter.done
    assert replay("codex_exec/401").adapter.done


def test_while_a_command_runs_it_is_in_a_tool():
    assert replay("codex_exec/interrupted").adapter.in_tool
    assert not replay("codex_exec/ok").adapter.in_tool


def test_success_with_a_bad_exit_code_is_a_disagreement():
    verdict = replay("codex_exec/ok", exit_code=1).verdict
    assert (verdict.outcome, verdict.reason) == ("failed", "disagreement")


def test_exit_code_0_without_a_result_breaks_the_protocol():
    assert replay("codex_exec/ok", exit_code=0, but=1).verdict.reason == "protocol"


def test_exit_code_0_makes_no_success_of_a_failure():
    assert replay("codex_exec/401", exit_code=0).verdict.reason == "auth"


def test_a_sandbox_that_forbids_leaves_no_trace_in_what_it_says():
    """Known gap: the result looks like a good one, only the workspace can tell."""
    said = replay("codex_exec/read_only")
    assert said.the("tool_call") == []
    assert said.verdict.outcome == "succeeded"
