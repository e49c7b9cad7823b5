"""What Claude Code is told while it works, what it asks, and what is made of that: lines as it says them, no program."""

import json

import pytest
from agents.runs import run_of
from leasehold.agents.claude_control import ident_of
from leasehold.agents.registry import adapter_for
from leasehold.models import Control, RunKey

BEGUN = {"type": "control_response", "response": {"subtype": "success", "request_id": "init", "response": {}}}
WELL = {"type": "result", "subtype": "success", "is_error": False, "terminal_reason": "completed", "result": "Done."}
ABORTED = {"type": "result", "subtype": "error_during_execution", "is_error": True, "terminal_reason": "aborted_tools"}
SESSION = {"type": "system", "subtype": "init", "session_id": "s-1"}


def claude(*said, **more):
    """One that was told its prompt and has said that."""
    adapter = adapter_for(run_of("claude", **more))
    told(adapter)
    hear(adapter, BEGUN, SESSION, echo(0), *said)
    return adapter


def told(adapter):
    """What it is owed now, by key; it has it."""
    inputs = {each.key: json.loads(each.raw) for each in adapter.owed}
    for key in inputs:
        adapter.taken(key)
    return inputs


def hear(adapter, *said):
    return [event for each in said for event in adapter.receive(json.dumps(each).encode())]


def echo(turn, run=1):
    return {
        "type": "user",
        "isReplay": True,
        "uuid": ident_of(run, turn),
        "message": {"role": "user", "content": "words"},
    }


def asks(given, ident="r-1", tool="Write", **more):
    request = {"subtype": "can_use_tool", "tool_name": tool, "input": given, "tool_use_id": "t-1", **more}
    return {"type": "control_request", "request_id": ident, "request": request}


def test_it_owes_the_handshake_and_the_prompt_before_it_has_said_anything():
    adapter = adapter_for(run_of("claude", prompt="two\nlines"))
    init, start = [json.loads(each.raw) for each in adapter.owed]
    assert [each.key for each in adapter.owed] == ["init", "start"]
    assert init == {"type": "control_request", "request_id": "init", "request": {"subtype": "initialize"}}
    assert start["message"]["content"] == [{"type": "text", "text": "two\nlines"}]
    assert (adapter.ready, adapter.waiting, adapter.over) == (False, False, False)
    hear(adapter, BEGUN)
    assert not adapter.ready, "an interrupt would find nothing to interrupt, and the prompt would then be heard"
    hear(adapter, {"type": "command_lifecycle", "state": "started", "command_uuid": ident_of(1, 0)})
    assert adapter.ready


def test_a_handshake_that_is_refused_is_a_broken_protocol():
    adapter = adapter_for(run_of("claude"))
    told(adapter)
    (event,) = hear(
        adapter,
        {"type": "control_response", "response": {"subtype": "error", "request_id": "init", "error": "too old"}},
    )
    assert (event.kind, event.data["reason"]) == ("result", "protocol")
    assert list(told(adapter)) == ["vain"]
    assert adapter.over
    verdict = adapter.verdict(0)
    assert (verdict.outcome, verdict.reason) == ("failed", "protocol")
    assert "too old" in verdict.message


def test_prompts_of_two_runs_of_a_session_are_told_apart_and_only_our_own_are_heard():
    ours = {ident_of(run, turn) for run in (1, 2, 1 << 59) for turn in (0, 1, 1 << 59)}
    assert len(ours) == 9
    adapter = adapter_for(run_of("claude", key=RunKey(7, run_of("claude").key.token)))
    adapter.send(Control("steer", 9, "words"))
    hear(adapter, echo(9, run=8), {**echo(0), "uuid": "no-uuid"}, {**echo(0), "uuid": None})
    assert [each.key for each in adapter.owed] == ["init", "start", "turn:9"]
    hear(adapter, echo(9, run=7))
    assert [each.key for each in adapter.owed] == ["init", "start"]


def test_one_result_ends_all_the_turns_that_were_heard_before_it_and_no_other():
    adapter = claude()
    for turn, kind in ((5, "steer"), (6, "steer"), (7, "prompt")):
        adapter.send(Control(kind, turn, f"words {turn}"))
    said = told(adapter)
    assert [said[f"turn:{turn}"]["message"]["content"][0]["text"] for turn in (5, 6, 7)] == [
        "words 5",
        "words 6",
        "words 7",
    ]
    assert [said[f"turn:{turn}"].get("priority") for turn in (5, 6, 7)] == [None, None, "later"]
    turns = [event.data for event in hear(adapter, echo(5), echo(6), WELL) if event.kind == "turn"]
    assert turns == [{"turn": 5, "state": "ended"}, {"turn": 6, "state": "ended"}]
    assert (adapter.done, adapter.over) == (False, False)
    hear(adapter, echo(7))
    assert adapter.verdict(0).reason == "protocol", "it left in the middle of a turn"
    *_, turn, result = hear(adapter, WELL)
    assert turn.data["turn"] == 7
    assert adapter.over
    assert adapter.verdict(0).outcome == "succeeded"
    assert not told(adapter)
    assert result.data["ok"]


def test_an_interrupt_that_ends_the_turn_and_nothing_after_it_blocks_the_job():
    adapter = claude()
    adapter.send(Control("interrupt", 8))
    assert told(adapter)["turn:8"]["request"] == {"subtype": "interrupt"}
    response = {"type": "control_response", "response": {"subtype": "success", "request_id": "turn:8", "response": {}}}
    assert hear(adapter, response) == []
    turn, result = hear(adapter, ABORTED)
    assert (turn.data["turn"], turn.data["state"]) == (8, "ended")
    assert result.data["reason"] == "turn_interrupted"
    assert adapter.over
    verdict = adapter.verdict(0)
    assert (verdict.outcome, verdict.reason) == ("blocked", "turn_interrupted")


def test_what_comes_behind_an_interrupt_goes_on():
    adapter = claude()
    adapter.send(Control("interrupt", 8))
    adapter.send(Control("steer", 9, "rather this"))
    response = {"type": "control_response", "response": {"subtype": "success", "request_id": "turn:8", "response": {}}}
    hear(adapter, response, ABORTED)
    assert not adapter.done
    hear(adapter, echo(9), WELL)
    told(adapter)
    assert adapter.over
    assert adapter.verdict(0).outcome == "succeeded"


def test_an_interrupt_that_comes_when_all_is_done_has_ended_at_once():
    adapter = claude(WELL)
    adapter.send(Control("interrupt", 8))
    told(adapter)
    assert not adapter.over
    response = {"type": "control_response", "response": {"subtype": "success", "request_id": "turn:8", "response": {}}}
    (turn,) = hear(adapter, response)
    assert (turn.data["turn"], turn.data["state"]) == (8, "ended")
    assert adapter.over
    assert adapter.verdict(0).outcome == "succeeded"


def test_a_signal_that_aborts_it_is_no_interrupt_of_ours():
    assert claude(ABORTED).verdict(0).reason == "agent_error"


@pytest.mark.parametrize(("length", "goes_back"), [(1000, True), (100_000, False)])
def test_the_event_is_short_and_what_goes_back_is_what_came_or_nothing_if_that_is_long(length, goes_back):
    text = "long " * length
    adapter = claude()
    (event,) = hear(adapter, asks({"file_path": "/w/a", "content": text}))
    assert (event.kind, event.message, event.data["tool"]) == ("permission", "Write: /w/a", "Write")
    assert len(event.data["input"]["content"]) < 3000
    assert [each["kind"] for each in event.data["options"]] == ["allow_once", "reject_once", "reject_once"]
    assert adapter.waiting
    adapter.send(Control("answer", 3, data={"request": "r-1", "decision": "allow"}))
    assert not adapter.waiting
    reply = told(adapter)["answer:3"]["response"]
    assert (reply["subtype"], reply["request_id"]) == ("success", "r-1")
    more = {"updatedInput": {"file_path": "/w/a", "content": text}} if goes_back else {}
    assert reply["response"] == {"behavior": "allow", **more}


def test_a_rule_for_the_like_of_it_is_kept_in_the_process_and_not_in_the_repository():
    rule = {"type": "addRules", "rules": [{"toolName": "Write"}], "behavior": "allow", "destination": "localSettings"}
    adapter = claude()
    (event,) = hear(adapter, asks({"file_path": "/w/a"}, permission_suggestions=[rule]))
    assert "allow_always" in [each["kind"] for each in event.data["options"]]
    adapter.send(Control("answer", 3, data={"request": "r-1", "decision": "allow", "option": "always"}))
    reply = told(adapter)["answer:3"]["response"]["response"]
    assert reply["updatedPermissions"] == [{**rule, "destination": "session"}]


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ({"decision": "deny", "message": "Not here."}, {"behavior": "deny", "message": "Not here."}),
        ({"decision": "deny"}, {"behavior": "deny", "message": "This was denied."}),
        ({"decision": "deny", "option": "deny"}, {"behavior": "deny", "message": "This was denied."}),
        (
            {"decision": "deny", "option": "stop"},
            {"behavior": "deny", "message": "This was denied.", "interrupt": True},
        ),
    ],
)
def test_a_denial_has_words_for_the_model(answer, reply):
    adapter = claude(asks({"file_path": "/w/a"}))
    adapter.send(Control("answer", 3, data={"request": "r-1", **answer}))
    assert told(adapter)["answer:3"]["response"]["response"] == reply


def test_what_it_withdraws_waits_for_nobody_and_an_answer_to_it_is_not_sent():
    adapter = claude(asks({"file_path": "/w/a"}))
    (event,) = hear(adapter, {"type": "control_cancel_request", "request_id": "r-1"})
    assert (event.kind, event.data["id"]) == ("withdrawn", "r-1")
    assert not adapter.waiting
    adapter.send(Control("answer", 3, data={"request": "r-1", "decision": "allow"}))
    assert not told(adapter)


def test_with_the_turn_ends_what_it_asked():
    adapter = claude(asks({"file_path": "/w/a"}))
    assert [event.data["id"] for event in hear(adapter, ABORTED) if event.kind == "withdrawn"] == ["r-1"]
    assert adapter.over


@pytest.mark.parametrize(
    "request_",
    [
        {"subtype": "hook_callback"},
        {"subtype": "mcp_message"},
        {"subtype": "can_use_tool"},
        {"subtype": "can_use_tool", "tool_name": "AskUserQuestion", "input": {}},
        {},
    ],
)
def test_a_request_that_nobody_here_understands_is_refused_and_not_left_open(request_):
    adapter = claude()
    (event,) = hear(adapter, {"type": "control_request", "request_id": "r-9", "request": request_})
    assert event.kind == "unknown"
    reply = told(adapter)["reply:r-9"]["response"]
    assert (reply["subtype"], reply["request_id"]) == ("error", "r-9")
    assert not adapter.waiting


def test_when_its_key_is_refused_for_good_it_is_told_to_stop_and_hears_nothing_more():
    retry = {"type": "system", "subtype": "api_retry", "error": "authentication_failed", "attempt": 1}
    adapter = claude(retry, retry, retry)
    assert adapter.done
    assert list(told(adapter)) == ["vain"]
    assert adapter.over
    adapter.send(Control("steer", 9, "words"))
    assert not told(adapter)
    turn, error = hear(adapter, ABORTED)
    assert (turn.data["turn"], turn.data["state"]) == (9, "refused")
    assert error.kind == "error"
    assert adapter.verdict(0).reason == "auth"


def test_pieces_and_the_whole_of_a_message_have_one_id_and_a_second_text_another():
    def piece(text, index):
        event = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
        return {"type": "stream_event", "event": event, "parent_tool_use_id": None}

    def whole(text):
        return {"type": "assistant", "message": {"id": "m-1", "content": [{"type": "text", "text": text}]}}

    start = {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "m-1"}}}
    said = hear(claude(), start, piece("a", 0), piece("b", 0), whole("ab"), piece("c", 1), whole("c"))
    assert [(event.kind, event.message, event.data["id"]) for event in said] == [
        ("delta", "a", "m-1"), ("delta", "b", "m-1"), ("message", "ab", "m-1"), ("delta", "c", "m-1/1"), ("message", "c", "m-1/1"),
    ]  # fmt: skip


def test_words_of_the_program_itself_are_not_the_models_and_no_error_unless_it_says_so():
    said = {"type": "assistant", "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "Cost: 0"}]}}
    assert [event.kind for event in hear(claude(), said, {**said, "is_api_error_message": True})] == [
        "progress",
        "error",
    ]


def test_the_words_of_a_helper_are_not_those_of_the_agent():
    said = {
        "type": "assistant",
        "parent_tool_use_id": "t-1",
        "message": {"id": "m", "content": [{"type": "text", "text": "hm"}]},
    }
    adapter = claude()
    assert [(event.kind, event.phase) for event in hear(adapter, said)] == [("progress", "helper")]
    hear(adapter, {**WELL, "result": ""})
    assert adapter.verdict(0).reason == "empty_output"


def test_options_of_the_row_stand_last():
    run = run_of("claude", ("/bin/claude", "--allowedTools", "Bash", "Edit"), session="s-1")
    start = adapter_for(run).launch(run, "/w")
    assert start.argv[-3:] == ("--allowedTools", "Bash", "Edit")
    assert start.argv[start.argv.index("--resume") + 1] == "s-1"
    assert start.converses
