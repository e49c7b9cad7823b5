"""What adapter acp makes of the protocol: sequence, words, tools, permissions, forms, controls, ends. No program is needed."""

import json

import pytest
from acp.schema import SessionNotification
from agents.acp_peer import CAN_ALL, OPTIONS, Peer
from leasehold.agents.base import Conversing
from leasehold.models import Control


def test_it_begins_with_a_handshake_then_a_session_then_the_prompt_and_is_over_with_its_answer():
    peer = Peer(prompt="do it")
    assert isinstance(peer.fold, Conversing)
    assert peer.keys == ["init"]
    assert not peer.fold.ready
    peer.begins()
    assert peer.keys == ["init", "open", "start"]
    assert peer.told["open"]["params"] == {"cwd": "/work", "mcpServers": []}
    assert peer.told["start"]["params"] == {"sessionId": "s", "prompt": [{"type": "text", "text": "do it"}]}
    assert peer.fold.ready
    peer.words("Done.")
    assert not peer.fold.over
    peer.ends()
    assert peer.fold.over
    assert peer.fold.done
    assert peer.kinds() == ["session", "message", "result"]
    assert peer.verdict() == ("succeeded", None)
    assert peer.verdict(1) == ("failed", "disagreement")


def test_a_command_is_the_rows_and_it_is_spoken_to_in_the_directory_it_runs_in():
    peer = Peer(command=("agent", "acp"), launcher=("nice",), env={"A": "1"}, workspace=None)
    start = peer.fold.launch(peer.fold._run, "/elsewhere")
    assert (start.argv, start.converses, start.stdin, start.env["A"]) == (("nice", "agent", "acp"), True, None, "1")
    peer.hello()
    assert peer.told["open"]["params"]["cwd"] == "/elsewhere"
    found = Peer(workspace="/elsewhere")  # by a daemon that has not launched it
    found.hello()
    assert found.told["open"]["params"]["cwd"] == "/elsewhere"


@pytest.mark.parametrize(("can", "method"), [(CAN_ALL, "session/resume"), ({"loadSession": True}, "session/load")])
def test_a_session_is_gone_on_with_by_the_method_that_tells_least_again(can, method):
    peer = Peer(session="s")
    peer.hello(can=can)
    assert peer.told["open"]["method"] == method
    assert peer.told["open"]["params"]["sessionId"] == "s"
    peer.says(id="open", result={})  # some say nothing, some null
    (begun,) = peer.the("session")
    assert begun.data["id"] == "s"
    assert "start" in peer.told


def test_what_was_said_before_is_not_said_again_when_a_session_is_loaded():
    peer = Peer(session="s")
    peer.hello(can={"loadSession": True})
    peer.updates("user_message_chunk", content={"type": "text", "text": "hello"})
    peer.words("as before")
    peer.updates("tool_call", toolCallId="old", title="ls", status="completed")
    assert peer.kinds() == []
    assert not peer.fold.in_tool
    peer.says(id="open", result=None)
    peer.words("something new")
    peer.ends()
    assert [event.message for event in peer.the("message")] == ["something new"]


def test_a_past_that_is_told_after_the_session_is_open_is_the_past_all_the_same():
    peer = Peer(session="s")
    peer.hello("gemini-cli", can={"loadSession": True})
    peer.says(id="open", result={})
    peer.words("as before")
    peer.updates("available_commands_update", availableCommands=[])
    peer.words("something new")
    peer.ends()
    assert [event.message for event in peer.the("message")] == ["something new"]


def test_a_session_that_it_cannot_go_on_with_is_rejected():
    peer = Peer(session="s")
    peer.hello(can={})
    assert peer.fold.over
    assert peer.verdict() == ("failed", "session_rejected")
    peer = Peer(session="s")
    peer.hello()
    peer.says(id="open", error={"code": -32603, "message": "Internal error"})
    assert peer.fold.over
    assert peer.verdict(1) == ("failed", "session_rejected")


def test_another_version_of_the_protocol_is_not_spoken():
    peer = Peer()
    peer.says(id="init", result={"protocolVersion": 2})
    assert peer.fold.over
    assert peer.verdict() == ("failed", "protocol")


@pytest.mark.parametrize("result", [{}, {"sessionId": 5}, None])
def test_a_step_that_is_answered_with_nonsense_ends_it(result):
    peer = Peer()
    peer.hello()
    peer.says(id="open", result=result)
    assert peer.fold.over
    assert peer.verdict() == ("failed", "protocol")


def test_the_mode_is_the_quirks_or_the_rows_and_nothing_is_asked_of_it_before_it_is_in_it():
    codex = "@agentclientprotocol/codex-acp"
    peer = Peer()
    peer.hello(codex)
    peer.says(id="open", result={"sessionId": "s"})
    assert peer.told["mode"]["params"] == {"sessionId": "s", "modeId": "workspace-write"}
    assert "start" not in peer.told
    peer.says(id="mode", error={"code": -32602, "message": "no such mode"})
    assert "start" not in peer.told
    assert peer.fold.over
    assert peer.verdict() == ("failed", "agent_error")
    assert "mode" not in Peer(env={"LEASEHOLD_ACP_MODE": ""}).begins(codex).told
    assert Peer(env={"LEASEHOLD_ACP_MODE": "plan"}).begins().told["mode"]["params"]["modeId"] == "plan"


def test_pieces_are_told_as_they_come_and_a_message_when_it_is_over():
    peer = Peer().begins()
    peer.words("", messageId="a")
    peer.words("one ", messageId="a")
    peer.words("two", messageId="a")
    assert [(e.message, e.data["id"]) for e in peer.the("delta")] == [("one ", "a"), ("two", "a")]
    assert peer.the("message") == []
    peer.words("three", messageId="b")
    peer.updates("agent_thought_chunk", content={"type": "text", "text": "hm, "})
    peer.updates("agent_thought_chunk", content={"type": "text", "text": "so"})
    peer.words("four")
    peer.ends()
    said = [(event.message, event.data["status"]) for event in peer.the("message")]
    assert said == [("one two", "completed"), ("three", "completed"), ("four", "completed")]
    assert len({event.data["id"] for event in peer.the("message")}) == 3
    assert [e.message for e in peer.the("progress") if e.phase == "thinking"] == ["hm, so"]


def test_a_message_without_an_end_is_put_together_no_longer_than_a_bound():
    peer = Peer().begins()
    for _ in range(300):
        peer.fold.receive(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": {
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "x" * 1000}}}}).encode())  # fmt: skip
    peer.ends()
    (message,) = peer.the("message")
    assert len(message.message) == 256 << 10
    assert message.data["cut"] == 300_000


def test_a_tool_is_told_when_it_is_known_what_it_does_and_it_is_at_work_from_the_start():
    peer = Peer().begins()
    peer.words("I will.")
    assert [
        e.kind for e in peer.updates("tool_call", toolCallId="c", title="bash", kind="execute", status="pending")
    ] == ["message"]
    assert peer.fold.in_tool
    (begun,) = peer.updates("tool_call_update", toolCallId="c", status="in_progress", rawInput={"command": "ls -l"})
    assert (begun.message, begun.data["name"], begun.data["status"]) == ("ls -l", "execute", "started")
    assert peer.updates("tool_call_update", toolCallId="c", status="in_progress") == []
    output = [
        {"type": "content", "content": {"type": "text", "text": "o" * 5000}},
        {"type": "diff", "path": "/a", "newText": "b"},
    ]
    (ended,) = peer.updates("tool_call_update", toolCallId="c", status="completed", content=output)
    assert (ended.data["status"], ended.data["ok"], len(ended.data["text"])) == (
        "finished",
        True,
        2000 + len("… (5000 characters)"),
    )
    assert ended.data["diff"] == [{"path": "/a", "old": None, "new": "b"}]
    assert not peer.fold.in_tool
    assert (
        peer.updates("tool_call_update", toolCallId="c", _meta={"terminal_exit": {"exit_code": 0}}) == []
    )  # an afterthought
    assert not peer.fold.in_tool


def test_a_tool_that_was_never_announced_and_one_whose_command_failed():
    peer = Peer().begins()
    begun, ended = peer.updates("tool_call_update", toolCallId="x", title="cat", status="completed")
    assert (begun.data["status"], ended.data["status"], ended.data["ok"]) == ("started", "finished", True)
    peer.updates("tool_call", toolCallId="y", title="false", status="in_progress")
    (ended,) = peer.updates("tool_call_update", toolCallId="y", status="completed", rawOutput={"metadata": {"exit": 3}})
    assert (ended.data["ok"], ended.data["exit_code"]) == (False, 3)


def test_a_tool_that_is_at_work_when_the_turn_is_over_has_ended_too():
    peer = Peer().begins()
    peer.updates("tool_call", toolCallId="y", title="sleep", status="in_progress")
    peer.ends("cancelled")
    assert [event.data["status"] for event in peer.the("tool_call")] == ["started", "finished"]
    assert not peer.fold.in_tool


def test_a_plan_is_a_plan_and_what_is_new_is_kept():
    peer = Peer().begins()
    entries = [{"content": "look", "priority": "high", "status": "pending"}]
    (plan,) = peer.updates("plan", entries=entries)
    assert plan.data["items"] == entries
    (new,) = peer.updates("colour_update", colour="blue")
    assert (new.kind, new.level, new.data["raw"]["params"]["update"]["colour"]) == ("unknown", "debug", "blue")
    (new,) = peer.says(method="_vendor/news", params={})
    assert new.kind == "unknown"
    assert peer.updates("available_commands_update", availableCommands=[]) == []


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"decision": "allow"}, "once"), ({"decision": "deny"}, "no"), ({"decision": "allow", "option": "forever"}, "forever"),
        ({"option": "no"}, "no"), ({"decision": "allow", "option": "nonsense"}, "once"),
    ],
)  # fmt: skip
def test_a_permission_is_answered_with_the_option_of_that_kind_whatever_its_name(given, chosen):
    peer = Peer().begins()
    begun, asked = peer.asks(7)
    assert begun.data["status"] == "started"
    assert (asked.message, asked.data["id"], asked.data["tool"]) == ("rm -r /", "7", "execute")
    assert asked.data["options"] == [{"id": o["optionId"], "name": o["name"], "kind": o["kind"]} for o in OPTIONS]
    assert peer.fold.waiting
    peer.send("answer", 1, request="7", **given)
    assert not peer.fold.waiting
    assert peer.told["answer:1"] == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {"outcome": {"outcome": "selected", "optionId": chosen}},
    }
    peer.send("answer", 2, request="7", **given)
    assert "answer:2" not in peer.told


def test_a_denial_that_it_has_no_option_for_is_a_cancellation():
    peer = Peer().begins()
    peer.asks(0, options=OPTIONS[:2])
    peer.send("answer", 1, request="0", decision="deny")
    assert peer.told["answer:1"]["result"] == {"outcome": {"outcome": "cancelled"}}


def test_what_was_denied_to_it_and_not_made_good_is_no_success():
    peer = Peer().begins()
    peer.asks(0)
    peer.send("answer", 1, request="0", decision="deny")
    peer.updates("tool_call_update", toolCallId="c0", status="failed")
    peer.words("I could not.")
    peer.ends()
    assert peer.verdict() == ("failed", "disagreement")
    made_good = Peer().begins()
    made_good.asks(0)
    made_good.send("answer", 1, request="0", decision="deny")
    made_good.updates("tool_call", toolCallId="other", title="another way", status="completed")
    made_good.words("Another way was found.")
    made_good.ends()
    assert made_good.verdict() == ("succeeded", None)


def test_an_agent_whose_turn_ends_with_a_denial_was_not_interrupted_by_us():
    peer = Peer().begins()
    peer.asks(0)
    peer.send("answer", 1, request="0", decision="deny")
    peer.ends("cancelled")
    assert peer.verdict() == ("failed", "disagreement")
    assert Peer().begins().ends("cancelled")[-1].data["reason"] == "cancelled"


def test_a_form_is_a_question_and_its_answers_have_the_types_of_its_fields():
    peer = Peer().begins()
    colour = {"type": "string", "title": "Colour", "description": "Which?", "oneOf": [{"const": "r", "title": "Red"}]}
    tags = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}
    fields = {
        "colour": colour,
        "tags": tags,
        "count": {"type": "integer"},
        "sure": {"type": "boolean"},
        "words": {"type": "string"},
    }
    params = {
        "sessionId": "s",
        "mode": "form",
        "message": "Please",
        "requestedSchema": {"type": "object", "properties": fields},
    }
    (asked,) = peer.says(id="q", method="elicitation/create", params=params)
    assert (asked.kind, asked.message, asked.data["id"]) == ("question", "Please", "q")
    first, second = asked.data["questions"][:2]
    assert (first["question"], first["options"]) == ("Which?", [{"label": "Red", "description": ""}])
    assert (second["multiple"], asked.data["questions"][4]["free_text"]) == (True, True)
    answers = {"colour": ["Red"], "tags": ["a", "b"], "count": ["3"], "sure": ["yes"]}
    peer.send("answer", 4, request="q", decision="allow", answers=answers)
    content = {"colour": "r", "tags": ["a", "b"], "count": 3, "sure": True}
    assert peer.told["answer:4"]["result"] == {"action": "accept", "content": content}


def test_a_form_may_be_declined():
    peer = Peer().begins()
    params = {
        "sessionId": "s",
        "mode": "form",
        "message": "Please",
        "requestedSchema": {"properties": {"a": {"type": "string"}}},
    }
    peer.says(id="q", method="elicitation/create", params=params)
    peer.send("answer", 4, request="q", decision="deny")
    assert peer.told["answer:4"]["result"] == {"action": "decline"}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("fs/read_text_file", {"path": "/etc/passwd"}, -32601), ("terminal/create", {"command": "sh"}, -32601),
        ("elicitation/create", {"mode": "url", "message": "x", "url": "http://x"}, -32602),
        ("session/request_permission", {"options": "none"}, -32602), ("_something/new", {}, -32601),
    ],
)  # fmt: skip
def test_whatever_else_it_asks_is_refused_at_once(method, params, code):
    peer = Peer().begins()
    (event,) = peer.says(id=3, method=method, params={"sessionId": "s", **params})
    assert event.kind == "unknown"
    assert peer.told["reply:3"]["error"]["code"] == code
    assert not peer.fold.waiting


def test_an_interrupt_cancels_the_turn_and_whatever_it_asks_meanwhile():
    peer = Peer().begins()
    peer.asks(0)
    peer.send("interrupt", 9)
    assert peer.told["turn:9"]["method"] == "session/cancel"
    assert peer.told["reply:0"]["result"] == {"outcome": {"outcome": "cancelled"}}
    assert not peer.fold.waiting
    peer.asks(1)  # it had not heard of it yet
    assert peer.told["reply:1"]["result"] == {"outcome": {"outcome": "cancelled"}}
    peer.ends("cancelled")
    assert {event.data["id"] for event in peer.the("withdrawn")} == {"0", "1"}
    (ended,) = peer.the("turn")
    assert (ended.data["turn"], ended.data["state"]) == (9, "ended")
    assert peer.fold.over
    assert peer.verdict() == ("blocked", "turn_interrupted")


def test_what_it_does_not_wait_for_any_more_is_withdrawn_and_answered():
    peer = Peer().begins()
    peer.asks(5)
    (event,) = peer.says(method="$/cancel_request", params={"requestId": 5})
    assert (event.kind, event.data["id"]) == ("withdrawn", "5")
    assert peer.told["reply:5"]["result"] == {"outcome": {"outcome": "cancelled"}}
    peer.ends()
    assert len(peer.the("withdrawn")) == 1


def test_a_prompt_waits_until_the_turn_is_over_and_one_that_comes_then_is_said_at_once():
    peer = Peer().begins()
    peer.send("prompt", 2, "and then this")
    peer.send("steer", 3, "and that")  # nobody can steer it
    assert "turn:2" not in peer.told
    peer.ends()
    assert peer.told["turn:2"]["params"]["prompt"][0]["text"] == "and then this"
    assert not peer.fold.over
    peer.ends(key="turn:2")
    assert not peer.fold.over
    peer.ends(key="turn:3")
    assert peer.fold.over
    assert [event.data["turn"] for event in peer.the("turn")] == [2, 3]
    peer.send("prompt", 4, "once more")
    assert not peer.fold.over
    assert peer.told["turn:4"]["params"]["prompt"][0]["text"] == "once more"


def test_an_interrupted_turn_may_be_followed_by_another_and_only_that_one_counts():
    peer = Peer().begins()
    peer.send("interrupt", 1)
    peer.send("prompt", 2, "rather this")
    peer.ends("cancelled")
    peer.words("This.")
    peer.ends(key="turn:2")
    assert peer.verdict() == ("succeeded", None)


def test_a_prompt_behind_a_turn_that_failed_is_refused():
    peer = Peer().begins()
    peer.send("prompt", 2, "and then this")
    events = peer.says(id="start", error={"code": -32603, "message": "Rate limit reached"})
    (refused,) = [event for event in events if event.kind == "turn"]
    assert refused.data["state"] == "refused"
    assert "Rate limit" in refused.data["why"]
    peer.send("prompt", 3, "now?")
    assert "turn:3" not in peer.told
    assert peer.fold.over
    (refused, _) = peer.updates("colour_update")
    assert (refused.data["turn"], refused.data["state"]) == (3, "refused")


def test_an_agent_that_says_it_can_is_steered():
    steering = {"_meta": {"steering": {"supported": True}}}
    peer = Peer().begins(**steering)
    peer.send("steer", 2, "no, that way")
    assert (peer.told["turn:2"]["method"], peer.told["turn:2"]["id"]) == ("_session/steering", "turn:2/steer")
    (event,) = peer.says(id="turn:2/steer", result={"outcome": "injected"})
    assert (event.data["turn"], event.data["state"]) == (2, "ended")
    peer.send("steer", 3, "no, back")
    (event,) = peer.says(id="turn:3/steer", result={"outcome": "promptRequired"})
    assert (event.data["turn"], event.data["state"]) == (3, "refused")


def test_a_control_that_is_sent_again_changes_nothing():
    peer = Peer().begins()
    peer.asks(0)
    for _ in range(2):
        peer.send("answer", 1, request="0", decision="allow")
        peer.send("prompt", 2, "and then")
    peer.ends()
    peer.ends(key="turn:2")
    keys = list(peer.keys)
    peer.send("prompt", 2, "and then")
    peer.send("interrupt", 3)  # too late
    assert peer.keys == keys
    assert peer.fold.over


def test_whoever_reads_it_all_again_owes_the_same_and_judges_the_same():
    """A daemon that has died without a checkpoint: it reads the whole file, and only then hears of the controls."""
    peer = Peer().begins()
    controls = [
        Control("answer", 1, None, {"request": "0", "decision": "deny"}), Control("prompt", 2, "and then"),
        Control("interrupt", 3),
    ]  # fmt: skip
    peer.asks(0)
    for control in controls[:2]:
        peer.fold.send(control)
    peer.take()
    peer.updates("tool_call", toolCallId="other", title="another way", status="completed")
    peer.ends()
    peer.words("I begin")
    peer.fold.send(controls[2])
    peer.take()
    peer.ends("cancelled", key="turn:2")
    again = Peer()
    for line in peer.lines:
        again.fold.receive(line)
    for control in controls:
        again.fold.send(control)
    assert again.fold.verdict(0) == peer.fold.verdict(0)
    assert (again.fold.over, again.fold.waiting) == (True, False)
    assert {each.key for each in again.fold.owed} <= {*peer.keys, "turn:3"}


@pytest.mark.parametrize(
    ("stop", "outcome", "reason"),
    [
        ("end_turn", "succeeded", None), ("max_turn_requests", "failed", "max_turns"), ("refusal", "failed", "refusal"),
        ("max_tokens", "failed", "agent_error"), ("cancelled", "failed", "agent_error"), ("bored", "failed", "agent_error"),
    ],
)  # fmt: skip
def test_a_stop_reason_says_how_it_ended(stop, outcome, reason):
    peer = Peer().begins()
    peer.words("Well.")
    (result,) = [event for event in peer.ends(stop) if event.kind == "result"]
    assert peer.verdict() == (outcome, reason)
    if outcome == "failed":
        assert stop in result.message
        assert result.level == "error"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": -32000, "message": "Authentication required"}, "auth"),
        ({"code": 401, "message": "no"}, "auth"),
        ({"code": 429, "message": "no"}, "rate_limit"),
        ({"code": -32603, "message": "Internal error", "data": {"errorKind": "authentication_failed"}}, "auth"),
        ({"code": -32603, "message": "Internal error", "data": {"errorKind": "rate_limit"}}, "rate_limit"),
        ({"code": -32603, "message": "x", "data": {"codex_error_info": "usageLimitExceeded"}}, "quota"),
        (
            {
                "code": -32603,
                "message": "x",
                "data": {"info": {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}},
            },
            "rate_limit",
        ),
        ({"code": -32603, "message": "Internal error: Rate limit reached"}, "rate_limit"),
        ({"code": -32603, "message": "Internal error: You have used up your quota."}, "quota"),
        ({"code": -32603, "message": "prompt is too long: 2 tokens > 1"}, "context_overflow"),
        ({"code": -32603, "message": "Internal error", "data": {"details": "Incorrect API key provided"}}, "auth"),
        ({"code": -32603, "message": "An accident."}, "agent_error"),
        ("a string", "agent_error"),
    ],
)
def test_an_error_says_why(error, reason):
    peer = Peer().begins()
    peer.says(id="start", error=error)
    assert peer.fold.over
    assert peer.verdict()[1] == reason


def test_an_error_that_it_says_as_its_own_words_first_is_no_message_of_the_model():
    peer = Peer().begins()
    peer.words("API Error: An accident.")
    peer.says(id="start", error={"code": -32603, "message": "Internal error: API Error: An accident."})
    (message,) = peer.the("message")
    assert message.data["status"] == "failed"
    assert peer.fold.verdict(0).result["text"] is None


def test_an_error_dressed_as_a_good_end_is_none():
    peer = Peer().begins("@agentclientprotocol/codex-acp")
    error = {"message": "Reconnecting... 1/2", "codexErrorInfo": {"a": {"httpStatusCode": 429}}, "willRetry": True}
    (event,) = peer.updates("session_info_update", _meta={"codex": {"error": error}})
    assert event.kind == "rate_limited"
    peer.updates("session_info_update", _meta={"codex": {"threadStatus": {"type": "systemError"}}})
    peer.words("exceeded retry limit, last status: 429 Too Many Requests\n\n")
    peer.ends(usage=None)
    assert peer.verdict() == ("interrupted", "rate_limit")


def test_what_a_turn_used_is_reported_once_and_what_it_cost_since_the_last_report():
    peer = Peer().begins()
    peer.updates("usage_update", used=10, size=100, cost={"amount": 0.5, "currency": "USD"})
    peer.ends(usage={"inputTokens": 10, "outputTokens": 5, "cachedReadTokens": 3, "totalTokens": 18})
    peer.send("prompt", 2, "more")
    peer.updates("usage_update", used=10, size=100, cost={"amount": 0.75, "currency": "USD"})
    peer.ends(key="turn:2", usage={"inputTokens": 1, "outputTokens": 1, "totalTokens": 2})
    first, second = ({k: v for k, v in event.data.items() if k != "raw"} for event in peer.the("usage"))
    assert first == {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 3, "cost_usd": 0.5}
    assert second == {"input_tokens": 1, "output_tokens": 1, "cost_usd": 0.25}


def test_a_cost_that_is_the_sessions_is_a_counter_of_the_session():
    peer = Peer().begins("OpenCode")
    peer.updates("usage_update", used=10, size=100, cost={"amount": 0.5, "currency": "USD"})
    peer.ends(usage={"inputTokens": 10, "outputTokens": 5, "totalTokens": 15})
    tokens, cost = peer.the("usage")
    assert (tokens.data["of"], tokens.data["cost_usd"]) == ("last_step", 0)
    assert (cost.data["counter"], cost.data["session"], cost.data["cost_usd"]) == ("session", "s", 0.5)


def test_an_agent_that_leaves_in_the_middle_has_not_succeeded():
    peer = Peer().begins()
    peer.words("I begin")
    assert peer.verdict() == ("failed", "protocol")
    assert peer.verdict(1) == ("failed", "exit_code")


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"words\n", b'{"type": "result"}', b'{"id": 1}', b"[" * 100_000])
def test_what_is_no_message_of_the_protocol_is_output(line):
    assert Peer().fold.receive(line) is None


def test_what_the_protocols_own_models_say_is_understood():
    peer = Peer().begins()
    block = {"type": "text", "text": "hello"}
    for update in (
        {"sessionUpdate": "agent_message_chunk", "content": block}, {"sessionUpdate": "agent_thought_chunk", "content": block},
        {"sessionUpdate": "user_message_chunk", "content": block},
        {"sessionUpdate": "tool_call", "toolCallId": "t", "title": "T", "kind": "edit", "status": "in_progress"},
        {"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed",
         "content": [{"type": "diff", "path": "/a", "newText": "x"}]},
        {"sessionUpdate": "plan", "entries": [{"content": "c", "priority": "low", "status": "pending"}]},
        {"sessionUpdate": "current_mode_update", "currentModeId": "m"}, {"sessionUpdate": "available_commands_update", "availableCommands": []},
        {"sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": {"amount": 1.0, "currency": "USD"}},
        {"sessionUpdate": "session_info_update", "title": "t"}, {"sessionUpdate": "config_option_update", "configOptions": []},
    ):  # fmt: skip
        said = SessionNotification.model_validate({"sessionId": "s", "update": update})
        events = peer.says(method="session/update", params=said.model_dump(mode="json", by_alias=True))
        assert "unknown" not in {event.kind for event in events}, update
