"""What `claude` really says with stream-json both ways, and what is made of it."""

import json

import pytest
from agents.replay import ALL, HERE, lines, replay
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
        ("529", "failed", "agent_error"),
        ("garbage", "failed", "agent_error"),
        ("says_nothing", "failed", "empty_output"),
        ("denied", "failed", "disagreement"),
        ("denied_by_rule", "failed", "disagreement"),
        ("interrupted", "failed", "agent_error"),
        ("bypass_as_root", "failed", "exit_code"),
        ("session_id", "succeeded", None),
        ("session_id_again", "failed", "exit_code"),
        ("allowed", "succeeded", None),
        ("allowed_always", "succeeded", None),
        ("refused", "succeeded", None),  # it was a human who said no
        ("refused_and_stopped", "blocked", "turn_interrupted"),
        ("question", "succeeded", None),
        ("question_in_words", "succeeded", None),
        ("question_refused", "succeeded", None),
        ("allowed_long", "succeeded", None),
        ("command_of_its_own", "succeeded", None),
        ("in_the_background", "succeeded", None),
        ("steered", "succeeded", None),
        ("prompted", "succeeded", None),
        ("prompted_after", "succeeded", None),
        ("stopped", "blocked", "turn_interrupted"),
        ("stopped_words", "blocked", "turn_interrupted"),
        ("stopped_asking", "blocked", "turn_interrupted"),
        ("stopped_idle", "succeeded", None),
        ("stopped_then_steered", "succeeded", None),
        ("steered_then_stopped", "succeeded", None),
    ],
)
def test_how_it_ends(case, outcome, reason):
    verdict = replay(f"claude/{case}").verdict
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_a_good_run_in_order():
    said = replay("claude/ok")
    assert said.kinds("delta") == ["session", "tool_call", "tool_call", "message", "usage", "result"]
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
    said = replay("claude/401_for_long")
    assert len(said.the("retrying")) == 3
    assert (said.adapter.done, said.adapter.over) == (True, True)
    assert said.heard("vain")["request"]["subtype"] == "interrupt"


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
    said = lines(HERE / "claude" / "ok.jsonl")[1]
    behind = [
        number
        for number, line in enumerate(said, 1)
        if (b'"type": "tool_use", "id"' in line and b'"assistant", "message"' in line) or b'"tool_result"' in line
    ]
    assert [replay("claude/ok", but=len(said) - number).adapter.in_tool for number in behind] == [True, False]


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


def test_a_message_grows_and_its_pieces_are_the_whole():
    said = replay("claude/ok")
    (message,) = said.the("message")
    pieces = said.the("delta")
    assert "".join(piece.message for piece in pieces) == message.message == "The proof is written."
    assert {piece.data["id"] for piece in pieces} == {message.data["id"]}


@pytest.mark.parametrize(("case", "done"), [("allowed", True), ("refused", False)])
def test_a_permission_is_asked_and_the_tool_does_as_it_was_answered(case, done):
    said = replay(f"claude/{case}")
    (asked,) = said.the("permission")
    assert (asked.message, asked.data["tool"]) == ("Bash: echo hello > proof.txt", "Bash")
    assert [each["id"] for each in asked.data["options"]] == ["allow", "always", "deny", "stop"]
    _, ended = said.the("tool_call")
    assert ended.data["ok"] is done
    assert said.heard("answer:1")["response"]["request_id"] == asked.data["id"]


def test_an_answer_for_the_like_of_it_is_asked_once():
    said = replay("claude/allowed_always")
    assert len(said.the("permission")) == 1
    assert [event.data["ok"] for event in said.the("tool_call") if event.data["status"] == "finished"] == [True, True]


def test_a_question_is_answered_in_the_input_of_the_tool_that_asks():
    said = replay("claude/question")
    (asked,) = said.the("question")
    drink, more = asked.data["questions"]
    assert (drink["id"], drink["question"], drink["multiple"]) == ("1", "What to drink?", False)
    assert [each["label"] for each in more["options"]] == ["Milk", "Salt"]
    result = said.the("tool_call")[-1].data["raw"]["message"]["content"][0]["content"]
    assert '"What to drink?"="Tea", "What goes with it?"="Milk, Salt"' in result


def test_a_steer_is_heard_with_the_next_tools_result_and_one_result_ends_both():
    said = replay("claude/steered")
    assert len(said.the("result")) == 1
    assert [event.data["turn"] for event in said.the("turn")] == [1]
    assert said.verdict.result["text"] == "Steered."


def test_a_prompt_waits_for_the_turns_end_and_has_a_result_and_a_cost_of_its_own():
    said = replay("claude/prompted")
    assert [event.message for event in said.the("message")] == ["As it was planned.", "Prompted."]
    assert len(said.the("session")) == 1
    first, second = said.the("result")
    assert second.data["raw"]["total_cost_usd"] == pytest.approx(
        sum(event.data["cost_usd"] for event in said.the("usage"))
    )
    assert first.data["ok"]


def test_an_interrupt_ends_the_turn_at_once_and_what_was_said_meanwhile_goes_on():
    said = replay("claude/steered_then_stopped")
    assert [event.data["turn"] for event in said.the("turn")] == [2, 1]
    assert [event.data["ok"] for event in said.the("result")] == [False, True]
    assert said.verdict.result["text"] == "Steered."


def test_an_interrupt_withdraws_what_it_asks():
    said = replay("claude/stopped_asking")
    assert [event.data["id"] for event in said.the("withdrawn")] == [said.the("permission")[0].data["id"]]


@pytest.mark.parametrize("path", [path for path in ALL if path.parent.name == "claude"], ids=lambda path: path.stem)
def test_nothing_that_this_version_says_is_unknown(path):
    assert replay(f"claude/{path.stem}").the("unknown") == []
