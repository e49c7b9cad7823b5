"""What `codex app-server` really says, what is made of it, and what it is told."""

import json

import pytest
from agents.replay import replay
from agents.runs import run_of
from agents.server import RESETS_AT
from leasehold.agents.registry import adapter_for
from leasehold.models import Control


@pytest.mark.parametrize(
    ("case", "outcome", "reason"),
    [
        ("ok", "succeeded", None),
        ("resume", "succeeded", None),
        ("429once", "succeeded", None),
        ("tool_fails", "succeeded", None),
        ("resume_unknown", "failed", "session_rejected"),
        ("401", "failed", "auth"),
        ("401_for_long", "failed", "auth"),
        ("403", "failed", "auth"),
        ("429", "interrupted", "rate_limit"),
        ("quota", "interrupted", "quota"),
        ("limit", "interrupted", "quota"),
        ("overflow", "failed", "context_overflow"),
        ("400", "failed", "agent_error"),
        ("500", "failed", "agent_error"),
        ("drop", "failed", "agent_error"),
        ("garbage", "failed", "agent_error"),
        ("says_nothing", "failed", "empty_output"),
        ("stopped", "blocked", "turn_interrupted"),
        ("stopped_words", "blocked", "turn_interrupted"),
        ("stopped_asking", "blocked", "turn_interrupted"),
        ("denied_and_stopped", "blocked", "turn_interrupted"),
        ("stopped_idle", "succeeded", None),
        ("stopped_then_prompted", "succeeded", None),
        ("steered", "succeeded", None),
        ("steered_after", "succeeded", None),
        ("prompted", "succeeded", None),
        ("prompted_after", "succeeded", None),
        ("allowed", "succeeded", None),
        ("denied", "succeeded", None),
        ("question", "succeeded", None),
        ("question_refused", "succeeded", None),
        ("killed", "failed", "exit_code"),
    ],
)
def test_how_it_ends(case, outcome, reason):
    verdict = replay(f"codex/{case}").verdict
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


@pytest.mark.parametrize("case", ["401", "429", "500", "quota", "overflow", "resume_unknown", "stopped"])
def test_its_exit_code_is_0_whatever_has_become_of_the_turn(case):
    assert replay(f"codex/{case}").about["exit_code"] == 0


def test_a_good_run_in_order():
    said = replay("codex/ok")
    kinds = said.kinds("unknown", "rate_limited")
    assert [kind for kind in kinds if kind != "delta"] == [
        "session", "progress", "tool_call", "usage", "tool_call", "message", "usage", "result",
    ] or [kind for kind in kinds if kind != "delta"] == [
        "session", "progress", "tool_call", "tool_call", "usage", "message", "usage", "result",
    ]  # fmt: skip
    begun, ended = said.the("tool_call")
    assert "echo hello > proof.txt" in begun.message
    assert (begun.data["status"], ended.data["status"], ended.data["ok"], ended.data["exit_code"]) == (
        "started", "finished", True, 0,
    )  # fmt: skip
    assert said.verdict.result == {"text": "The proof is written.", "session": said.the("session")[0].data["id"]}
    assert said.adapter.over


def test_what_it_says_comes_in_pieces_and_then_as_a_whole():
    said = replay("codex/ok")
    (message,) = said.the("message")
    pieces = said.the("delta")
    assert "".join(piece.message for piece in pieces) == message.message
    assert {piece.data["id"] for piece in pieces} == {message.data["id"]}


def test_a_resumed_thread_keeps_its_id_and_counts_on():
    first, second = replay("codex/ok"), replay("codex/resume")
    assert second.about["resumed"] == first.the("session")[0].data["id"] == second.the("session")[0].data["id"]
    one, two = (said.the("usage")[-1].data for said in (first, second))
    assert (one["input_tokens"], two["input_tokens"]) == (2000, 4000)
    assert one["counter"] == "session"
    assert one["session"] == two["session"] == second.about["resumed"]


def test_a_resumed_thread_is_where_its_run_is_and_may_what_its_agent_may_now():
    said = replay("codex/resume")
    params = said.heard("open")["params"]
    assert (params["threadId"], params["cwd"], params["excludeTurns"]) == (said.about["resumed"], ".", True)
    assert (params["sandbox"], params["approvalPolicy"]) == ("danger-full-access", "on-request")
    adapter = adapter_for(run_of("codex", session="s-1"))
    told(adapter, {"id": "init", "result": {}}, {"id": "config", "error": {"message": "never heard of it"}})
    assert json.loads(adapter.owed[-1].raw)["params"] == {"threadId": "s-1", "cwd": ".", "excludeTurns": True}


def test_a_steer_goes_into_the_turn_that_is_at_work_and_ends_with_it():
    said = replay("codex/steered")
    steer = said.heard("turn:1")
    assert steer["method"] == "turn/steer"
    assert steer["params"]["expectedTurnId"]
    (turn,) = said.the("turn")
    assert (turn.data["turn"], turn.data["state"]) == (1, "ended")
    assert said.verdict.result["text"] == "Steered."
    assert len(said.the("result")) == 1


@pytest.mark.parametrize("case", ["steered_after", "prompted_after", "prompted", "stopped_then_prompted"])
def test_what_comes_when_no_turn_can_take_it_is_a_turn_of_its_own(case):
    said = replay(f"codex/{case}")
    assert said.the("turn")[-1].data["state"] == "ended"
    assert len(said.the("result")) == 2
    assert said.verdict.result["text"] in ("Steered.", "Prompted.")


def test_a_steer_that_the_server_finds_too_late_is_said_again_as_a_turn_of_its_own():
    said = replay("codex/steered", but=1)
    adapter, thread = said.adapter, said.the("session")[0].data["id"]
    adapter.send(Control("steer", 2, "say: Late."))
    assert adapter.owed[-1].key == "turn:2"
    for line in (
        {"method": "turn/completed", "params": {"threadId": thread, "turn": {"id": "t", "status": "completed"}}},
        {"id": "turn:2/steer", "error": {"code": -32600, "message": "no active turn to steer"}},
    ):
        adapter.receive(json.dumps(line).encode())
        assert not adapter.over
    again = adapter.owed[-1]
    assert again.key == "turn:2/again"
    assert json.loads(again.raw)["params"]["input"][0]["text"] == "say: Late."


def test_an_interrupt_is_followed_by_the_end_of_what_its_tools_have_begun():
    said = replay("codex/stopped")
    (turn,) = said.the("turn")
    assert (turn.data["turn"], turn.data["state"]) == (1, "ended")
    (clean,) = [json.loads(each.raw) for each in said.inputs if each.key.endswith("/clean")]
    assert clean["method"] == "thread/backgroundTerminals/clean"
    assert said.adapter.over


def test_an_interrupt_of_nothing_is_refused():
    said = replay("codex/stopped_idle")
    (turn,) = said.the("turn")
    assert (turn.data["turn"], turn.data["state"]) == (1, "refused")
    assert turn.data["why"]


@pytest.mark.parametrize(
    ("case", "decision"), [("allowed", "accept"), ("denied", "decline"), ("denied_and_stopped", "cancel")]
)
def test_a_permission_is_asked_for_and_the_answer_said(case, decision):
    said = replay(f"codex/{case}")
    (asked,) = said.the("permission")
    assert asked.data["tool"] == "command_execution"
    assert "touch asked.txt" in asked.data["input"]["command"]
    assert "May I?" in asked.message
    kinds = {option["id"]: option["kind"] for option in asked.data["options"]}
    assert kinds["accept"] == "allow_once"
    assert kinds["decline"] == "reject_once"
    assert said.heard("answer:1")["result"] == {"decision": decision}
    assert asked.data["id"] in [event.data["id"] for event in said.the("withdrawn")]


def test_a_tool_that_was_denied_is_declined_and_no_contradiction():
    ended = replay("codex/denied").the("tool_call")[-1]
    assert (ended.data["ok"], ended.data["declined"]) == (False, True)


def test_what_was_allowed_for_good_is_not_asked_again():
    assert len(replay("codex/allowed_always").the("permission")) == 1


def test_while_it_waits_for_an_answer_it_waits_and_what_was_asked_ends_with_the_turn():
    said = replay("codex/stopped_asking")
    adapter = adapter_for(run_of("codex"))
    (asked,) = said.the("permission")
    assert asked.data["id"] in [event.data["id"] for event in said.the("withdrawn")]
    assert not said.adapter.waiting
    assert not adapter.waiting


def test_a_question_is_put_and_answered():
    said = replay("codex/question")
    (asked,) = said.the("question")
    (question,) = asked.data["questions"]
    assert (question["id"], question["question"], question["secret"]) == ("drink", "What to drink?", False)
    assert [option["label"] for option in question["options"]] == ["Tea", "Water"]
    assert said.heard("answer:1")["result"] == {"answers": {"drink": {"answers": ["Tea"]}}}
    assert replay("codex/question_refused").heard("answer:1")["result"] == {"answers": {}}


def test_each_retry_is_an_event_and_not_the_end():
    (waits,) = replay("codex/429once").the("rate_limited")
    assert (waits.data["attempt"], waits.data["of"]) == (1, 2)
    assert len(replay("codex/500").the("retrying")) >= 2


def test_a_key_that_is_refused_three_times_in_a_row_ends_it_early():
    said = replay("codex/401_for_long")
    assert len(said.the("retrying")) == 3
    assert said.adapter.over
    assert "three times" in said.verdict.message or "3 times" in said.verdict.message


def test_while_a_command_runs_it_is_in_a_tool():
    assert replay("codex/killed").adapter.in_tool
    assert not replay("codex/ok").adapter.in_tool


def told(adapter, *lines):
    return [event for line in lines for event in adapter.receive(json.dumps(line).encode()) or ()]


def at_work():
    """In its first turn."""
    adapter = adapter_for(run_of("codex"))
    told(
        adapter,
        {"id": "init", "result": {}},
        {"id": "open", "result": {"thread": {"id": "t-1"}}},
        {"id": "prompt/start", "result": {"turn": {"id": "one"}}},
    )
    for each in adapter.owed:
        adapter.taken(each.key)
    return adapter


def test_its_first_words_in_order():
    adapter = adapter_for(run_of("codex"))
    assert [each.key for each in adapter.owed] == ["init"]
    assert not adapter.ready
    told(adapter, {"id": "init", "result": {}})
    assert [each.key for each in adapter.owed] == ["initialized", "open"]
    adapter.taken("initialized")
    told(adapter, {"id": "open", "result": {"thread": {"id": "t-1"}}})
    assert adapter.ready
    (prompt,) = adapter.owed
    said = json.loads(prompt.raw)
    assert (prompt.key, said["id"], said["method"]) == ("prompt", "prompt/start", "turn/start")
    assert said["params"] == {"threadId": "t-1", "input": [{"type": "text", "text": "hello", "text_elements": []}]}


def test_how_it_is_started():
    run = run_of("codex", ("/bin/codex", "-c", "sandbox_mode=read-only"), launcher=("nice",))
    start = adapter_for(run).launch(run, "/w")
    assert start.argv == ("nice", "/bin/codex", "-c", "sandbox_mode=read-only", "app-server")
    assert start.converses
    assert start.stdin is None


def test_what_it_asks_for_that_nobody_can_give_is_refused_at_once():
    adapter = at_work()
    (event,) = told(adapter, {"id": 5, "method": "item/tool/call", "params": {"threadId": "t-1"}})
    assert (event.kind, event.level) == ("unknown", "debug")
    (owed,) = adapter.owed
    assert owed.key == "reply:5"
    assert json.loads(owed.raw)["error"]["code"] == -32601
    assert not adapter.waiting


@pytest.mark.parametrize(
    ("method", "params"),
    [("item/tool/requestUserInput", {"questions": [{"id": "a"}]}), ("item/tool/requestUserInput", {})],
)
def test_what_it_asks_in_a_way_that_nobody_here_understands_is_refused_at_once(method, params):
    adapter = at_work()
    (event,) = told(adapter, {"id": 5, "method": method, "params": {"threadId": "t-1", **params}})
    assert event.kind == "unknown" and not adapter.waiting
    (owed,) = adapter.owed
    assert "not understood" in json.loads(owed.raw)["error"]["message"]


def test_a_change_of_files_names_the_files():
    adapter = at_work()
    change = {
        "type": "fileChange",
        "id": "f",
        "changes": [{"path": "/w/new.txt", "kind": {"type": "add"}, "diff": "+hello"}],
    }
    _, asked = told(
        adapter,
        {"method": "item/started", "params": {"threadId": "t-1", "item": change}},
        {
            "id": 0,
            "method": "item/fileChange/requestApproval",
            "params": {"threadId": "t-1", "itemId": "f", "reason": None},
        },
    )
    assert (asked.data["tool"], asked.message, asked.data["input"]) == (
        "file_change",
        "/w/new.txt",
        {"files": "/w/new.txt"},
    )
    adapter.send(Control("answer", 3, data={"request": "0", "option": "acceptForSession"}))
    assert json.loads(adapter.owed[-1].raw) == {"id": 0, "result": {"decision": "acceptForSession"}}


@pytest.mark.parametrize(
    ("data", "result"),
    [
        ({"decision": "allow"}, {"permissions": {"network": {"enabled": True}}, "scope": "turn"}),
        ({"option": "acceptForSession"}, {"permissions": {"network": {"enabled": True}}, "scope": "session"}),
        ({"decision": "deny"}, {"permissions": {}, "scope": "turn"}),
        ({"option": "nonsense"}, {"permissions": {}, "scope": "turn"}),
    ],
)
def test_more_rights_are_granted_as_asked_or_not_at_all(data, result):
    adapter = at_work()
    params = {"threadId": "t-1", "itemId": "p", "reason": "To look", "permissions": {"network": {"enabled": True}}}
    told(adapter, {"id": 9, "method": "item/permissions/requestApproval", "params": params})
    assert adapter.waiting
    adapter.send(Control("answer", 1, data={"request": "9", **data}))
    assert not adapter.waiting
    assert json.loads(adapter.owed[-1].raw) == {"id": 9, "result": result}


@pytest.mark.parametrize(("decision", "action"), [("allow", "accept"), ("deny", "decline")])
def test_a_tool_of_a_server_is_allowed_or_not(decision, action):
    adapter = at_work()
    params = {
        "threadId": "t-1",
        "serverName": "files",
        "mode": "form",
        "message": "Allow it?",
        "requestedSchema": {"properties": {}},
    }
    (asked,) = told(adapter, {"id": 9, "method": "mcpServer/elicitation/request", "params": params})
    assert (asked.data["tool"], asked.message) == ("mcp_tool_call", "Allow it?")
    adapter.send(Control("answer", 1, data={"request": "9", "decision": decision}))
    assert json.loads(adapter.owed[-1].raw)["result"]["action"] == action


def test_sending_anything_again_changes_nothing():
    adapter = at_work()
    for control in (Control("steer", 1, "a"), Control("prompt", 2, "b"), Control("interrupt", 3)):
        for _ in range(3):
            adapter.send(control)
    assert [each.key for each in adapter.owed] == ["turn:1", "turn:3"]
    adapter.send(Control("answer", 9, data={"request": "nobody asked", "decision": "allow"}))
    assert len(adapter.owed) == 2


def test_what_comes_before_the_turn_has_a_name_waits_for_it():
    adapter = adapter_for(run_of("codex"))
    told(adapter, {"id": "init", "result": {}}, {"id": "open", "result": {"thread": {"id": "t-1"}}})
    adapter.send(Control("steer", 1, "a"))
    adapter.send(Control("interrupt", 2))
    assert [each.key for each in adapter.owed][-1] == "prompt"
    told(adapter, {"id": "prompt/start", "result": {"turn": {"id": "one"}}})
    lines = {each.key: json.loads(each.raw) for each in adapter.owed}
    assert lines["turn:1"]["params"]["expectedTurnId"] == "one"
    assert lines["turn:2"]["params"]["turnId"] == "one"


def test_a_used_up_account_comes_back_when_it_says():
    said = replay("codex/limit")
    (limit,) = said.the("rate_limited")
    assert limit.data == {"status": "reached", "resets_at": RESETS_AT, "raw": limit.data["raw"]}
    assert said.verdict.result["resets_at"] == RESETS_AT


def test_of_several_windows_the_one_that_is_full_counts_and_is_told_once():
    adapter = at_work()
    windows = {
        "primary": {"usedPercent": 100, "resetsAt": 1900000000},
        "secondary": {"usedPercent": 20, "resetsAt": 1990000000},
    }
    error = {"message": "You have hit your usage limit.", "codexErrorInfo": "usageLimitExceeded"}
    (limit,) = told(adapter, {"method": "account/rateLimits/updated", "params": {"rateLimits": windows}})
    assert (limit.kind, limit.data["resets_at"], limit.level) == ("rate_limited", 1900000000, "warning")
    assert told(adapter, {"method": "account/rateLimits/updated", "params": {"rateLimits": windows}}) == []
    told(
        adapter,
        {
            "method": "turn/completed",
            "params": {"threadId": "t-1", "turn": {"id": "one", "status": "failed", "error": error}},
        },
    )
    verdict = adapter.verdict(0)
    assert (verdict.outcome, verdict.reason, verdict.result["resets_at"]) == ("interrupted", "quota", 1900000000)


def test_a_turn_that_fails_ends_it_and_what_was_to_come_is_not_begun():
    adapter = at_work()
    adapter.send(Control("prompt", 1, "next"))
    told(
        adapter,
        {
            "method": "turn/completed",
            "params": {"threadId": "t-1", "turn": {"id": "one", "status": "failed", "error": {"message": "no"}}},
        },
    )
    assert adapter.over
    assert adapter.owed == []
    adapter.send(Control("prompt", 1, "next"))
    assert adapter.owed == []


def test_its_plan():
    steps = [{"step": "Think", "status": "completed"}, {"step": "Write", "status": "inProgress"}]
    params = {"threadId": "t-1", "turnId": "one", "explanation": "In order.", "plan": steps}
    (plan,) = told(at_work(), {"method": "turn/plan/updated", "params": params})
    assert (plan.kind, plan.message) == ("plan", "In order.")
    assert plan.data["items"] == [{"text": "Think", "status": "completed"}, {"text": "Write", "status": "inProgress"}]
    item = {"type": "plan", "id": "p", "text": "# How"}
    (proposal,) = told(at_work(), {"method": "item/completed", "params": {"threadId": "t-1", "item": item}})
    assert (proposal.kind, proposal.data["content"]) == ("artifact", "# How")


def test_agents_of_its_own_are_counted_but_not_told():
    adapter = at_work()
    used = {"total": {"inputTokens": 10, "outputTokens": 1, "cachedInputTokens": 0}}
    (usage,) = told(
        adapter,
        {"method": "turn/completed", "params": {"threadId": "t-2", "turn": {"id": "x", "status": "failed"}}},
        {"method": "thread/tokenUsage/updated", "params": {"threadId": "t-2", "turnId": "x", "tokenUsage": used}},
    )
    assert (usage.kind, usage.data["session"]) == ("usage", "t-2")
    assert not adapter.done


def test_what_is_of_no_interest_is_no_event_and_what_is_new_is_kept():
    adapter = at_work()
    assert told(adapter, {"method": "thread/status/changed", "params": {"threadId": "t-1"}}) == []
    (event,) = told(adapter, {"method": "thing/of/tomorrow", "params": {"colour": "blue"}})
    assert (event.kind, event.level, event.message) == ("unknown", "debug", "thing/of/tomorrow")
    assert event.data["raw"]["params"] == {"colour": "blue"}


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"words\n", b'{"no": "type"}', b'{"id": null}', b"[" * 100_000]
)
def test_what_is_no_line_of_the_protocol_is_output(line):
    assert adapter_for(run_of("codex")).receive(line) is None


def test_silence_is_no_success():
    assert adapter_for(run_of("codex")).verdict(0).reason == "protocol"
    assert adapter_for(run_of("codex")).verdict(3).reason == "exit_code"


def test_leaving_without_a_word_says_nothing_of_the_session():
    assert adapter_for(run_of("codex", session="s-1")).verdict(1).reason == "exit_code"
