"""What `claude -p --output-format stream-json` really says, and what is made of it."""

import json

import pytest
from agents.replay import replay
from agents.runs import run_of
from leasehold.agents.registry import adapter_for


@pytest.mark.parametrize(
    ("case", "outcome", "reason"),
    [
        ("ok", "succeeded", None),
        ("resume", "succeeded", None),
        ("429once", "succeeded", None),
        ("tool_fails", "succeeded", None),
        ("drop", "succeeded", None),  # it asks again without a stream
        ("resume_unknown", "failed", "session_rejected"),
        ("401", "failed", "auth"),
        ("401_for_long", "failed", "auth"),
        ("403", "failed", "auth"),
        ("429", "interrupted", "rate_limit"),
        ("quota", "interrupted", "quota"),
        ("overflow", "failed", "context_overflow"),
        ("max_turns", "failed", "max_turns"),
        ("budget", "blocked", "budget"),
        ("400", "failed", "agent_error"),
        ("500", "failed", "agent_error"),
        ("garbage", "failed", "agent_error"),
        ("says_nothing", "failed", "empty_output"),
        ("denied", "failed", "disagreement"),
        ("interrupted", "failed", "agent_error"),
    ],
)
def test_how_it_ends(case, outcome, reason):
    verdict = replay(f"claude/{case}").verdict
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_good_run_in_order():
    said = replay("claude/ok")
    assert said.kinds() == ["session", "tool_call", "tool_call", "message", "usage", "result"]
    begun, ended = said.the("tool_call")
    assert (begun.message, begun.data["name"], begun.data["status"]) == ("echo hello > proof.txt", "Bash", "started")
    assert (ended.data["id"], ended.data["status"], ended.data["ok"]) == (begun.data["id"], "finished", True)
    assert said.verdict.result["text"] == "The proof is written."


def test_the_cost_of_a_resumed_session_counts_on_but_only_what_is_new_is_reported():
    first, second = replay("claude/ok"), replay("claude/resume")
    assert second.about["resumed"] == first.the("session")[0].data["id"] == second.the("session")[0].data["id"]
    totals = [said.the("result")[0].data["raw"]["total_cost_usd"] for said in (first, second)]
    costs = [said.the("usage")[0].data["cost_usd"] for said in (first, second)]
    assert totals[1] == pytest.approx(sum(costs))
    used = second.the("usage")[0].data
    assert (used["input_tokens"], used["output_tokens"], used["cached_tokens"]) == (1200, 100, 800)
    assert "counter" not in used


@pytest.mark.parametrize("case", ["400", "401", "429", "500"])
def test_an_error_dressed_as_success_and_as_the_models_words_is_neither(case):
    said = replay(f"claude/{case}")
    result = said.the("result")[0]
    assert result.data["raw"]["subtype"] == "success"
    assert (result.level, result.data["ok"]) == ("error", False)
    assert said.the("message") == []
    assert len(said.the("error")) == 1


def test_each_retry_is_an_event_with_its_delay():
    waits = replay("claude/429").the("rate_limited")
    assert [event.data["attempt"] for event in waits] == [1, 2]
    assert all(event.data["delay_ms"] >= 1000 for event in waits)
    assert len(replay("claude/500").the("retrying")) == 2


def test_a_key_that_is_refused_three_times_in_a_row_ends_it_early():
    said = replay("claude/401_for_long", but=5)
    assert not said.adapter.done
    said = replay("claude/401_for_long", exit_code=0, but=4)
    assert said.adapter.done
    assert said.verdict.reason == "auth"


def test_a_denied_tool_makes_a_disagreement_of_a_success():
    said = replay("claude/denied")
    (denied,) = said.the("permission")
    assert (denied.data["name"], denied.data["decision"]) == ("Bash", "denied")
    assert said.about["exit_code"] == 0
    assert "Bash" in said.verdict.message


def test_an_interrupt_has_a_result_and_exit_code_0_and_is_no_success():
    said = replay("claude/interrupted")
    assert said.about["exit_code"] == 0
    assert said.the("result")[0].data["raw"]["terminal_reason"] == "aborted_tools"
    assert not said.adapter.in_tool


def test_while_a_tool_runs_it_is_in_a_tool():
    assert replay("claude/ok", but=3).adapter.in_tool
    assert not replay("claude/ok", but=2).adapter.in_tool


def test_when_a_limit_is_lifted_is_said_with_the_reason():
    adapter = adapter_for(run_of("claude"))
    for said in (
        {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1900000000}},
        {"type": "result", "subtype": "success", "is_error": True, "terminal_reason": "api_error", "api_error_status": 429,
         "result": "You have hit your usage limit"},
    ):  # fmt: skip
        adapter.receive(json.dumps(said).encode())
    verdict = adapter.verdict(1)
    assert (verdict.outcome, verdict.reason, verdict.result["resets_at"]) == ("interrupted", "quota", 1900000000)
