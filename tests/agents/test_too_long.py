"""A line that is too long to be read whole: what its beginning says leaves no tool at work and nobody waiting for an answer."""

import json
import random

import pytest
from agents.runs import run_of
from agents.test_asks_again import DIALECTS, OPTIONS
from leasehold.agents.heads import begun
from leasehold.agents.registry import adapter_for
from leasehold.events.fold import StdoutFold
from leasehold.processes.lines import LINE_LIMIT

HUGE = 'x"\\\n€{[,' * (LINE_LIMIT // 6)
RPC = {"jsonrpc": "2.0"}
BEGINS = {
    **{name: dialect.begins for name, dialect in DIALECTS.items()},
    "codex-exec": ({"type": "thread.started", "thread_id": "t"},),
}


def fold(name, *said):
    run = run_of(name, workspace="/w", events_limit=1000)
    made = StdoutFold(run, adapter_for(run))
    for line in (*BEGINS[name], *said):
        made.feed(json.dumps(line).encode() + b"\n")
    return made


def told(made, line, step=LINE_LIMIT // 3):
    raw = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    assert len(raw) > LINE_LIMIT
    return [row for at in range(0, len(raw), step) for row in made.feed(raw[at : at + step])]


def events(rows):
    return [row.event for row in rows if hasattr(row, "event")]


def codex_tool(**item):
    stage = "completed" if "status" in item else "started"
    return {
        "method": f"item/{stage}",
        "params": {"item": {"type": "commandExecution", "id": "c", "command": "cat", **item}, "threadId": "t"},
    }


def codex_exec_tool(**item):
    stage = "completed" if item else "started"
    return {"type": f"item.{stage}", "item": {"type": "command_execution", "id": "c", "command": "cat", **item}}


def acp_tool(**more):
    update = {"sessionUpdate": "tool_call_update", "toolCallId": "c", "title": "cat", **more}
    return {**RPC, "method": "session/update", "params": {"sessionId": "s", "update": update}}


def claude_tool(**more):
    block = {"type": "tool_use", "id": "c", "name": "Bash", "input": {"command": "cat"}}
    return {"type": "assistant", "message": {"id": "m", "content": [block]}} | more


def claude_result(content, **more):
    block = {"tool_use_id": "c", "type": "tool_result", "content": content, "is_error": False}
    return {"type": "user", "message": {"role": "user", "content": [block]}, "session_id": "s", **more}


TOOLS = [
    ("codex", codex_tool(), codex_tool(status="completed", aggregatedOutput=HUGE, exitCode=0), True),
    ("codex", codex_tool(), codex_tool(status="failed", aggregatedOutput=HUGE, exitCode=1), False),
    ("codex", codex_tool(), codex_tool(commandActions=[{"command": HUGE}], status="completed"), None),
    ("codex-exec", codex_exec_tool(), codex_exec_tool(aggregated_output=HUGE, status="failed"), None),
    ("acp", acp_tool(status="in_progress"), acp_tool(status="completed", rawOutput=HUGE), True),
    ("acp", acp_tool(status="in_progress"), acp_tool(status="failed", content=[{"type": "content", "content": {"type": "text", "text": HUGE}}]), False),
    ("claude", claude_tool(), claude_result(HUGE), None),
    ("claude", claude_tool(), claude_result([{"type": "text", "text": HUGE}]), None),
    ("claude", claude_tool(), claude_result("ok", tool_use_result={"originalFile": HUGE}), True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "start", "end", "ok"), TOOLS, ids=range(len(TOOLS)))
def test_a_tool_whose_result_is_too_long_is_no_longer_at_work(name, start, end, ok):
    made = fold(name, start)
    adapter = made._adapter
    assert adapter.in_tool
    rows = told(made, end)
    assert not adapter.in_tool
    finished, notice = events(rows)
    assert (finished.kind, finished.data["status"], finished.data.get("ok")) == ("tool_call", "finished", ok)
    assert notice.kind == "line_too_long"
    assert len(json.dumps(finished.data)) < 1000
    marks = [row.mark for row in rows if hasattr(row, "event")]
    assert marks == sorted(set(marks)) and marks[-1] == LINE_LIMIT + sum(
        len(json.dumps(line)) + 1 for line in (*BEGINS[name], start)
    )
    after = made.feed(json.dumps(start).encode() + b"\n")
    assert [row for row in after if not hasattr(row, "event")] == [], "and the next line is understood"


def test_a_tool_that_begins_with_too_many_words_is_at_work():
    block = {"type": "tool_use", "id": "c", "name": "Write", "input": {"content": HUGE}}
    made = fold("claude")
    told(made, {"type": "assistant", "message": {"id": "m", "content": [block]}})
    assert made._adapter.in_tool
    made.feed(json.dumps(claude_result("ok")).encode() + b"\n")
    assert not made._adapter.in_tool


def test_a_tool_of_another_thread_or_session_is_none_of_ours():
    made = fold("codex", codex_tool())
    other = codex_tool(status="completed", aggregatedOutput=HUGE)
    other["params"]["item"]["id"] = "theirs"
    assert [event.kind for event in events(told(made, other))] == ["line_too_long"]
    made = fold("acp", acp_tool(status="in_progress"))
    foreign = acp_tool(status="completed", rawOutput=HUGE)
    foreign["params"]["sessionId"] = "theirs"
    told(made, foreign)
    assert made._adapter.in_tool


ASKS = {
    "codex": {"method": "item/commandExecution/requestApproval", "id": 5, "params": {"threadId": "t", "command": HUGE}},
    "acp": {**RPC, "id": 5, "method": "session/request_permission", "params": {"sessionId": "s", "options": OPTIONS, "toolCall": {"toolCallId": "c", "rawInput": {"command": HUGE}}}},
    "claude": {"type": "control_request", "request_id": "5", "request": {"subtype": "can_use_tool", "tool_name": "Write", "input": {"content": HUGE}}},
}  # fmt: skip


@pytest.mark.parametrize("name", ASKS)
def test_whoever_asks_at_too_great_a_length_is_refused_at_once_and_nobody_allows_what_he_cannot_see(name):
    made = fold(name)
    adapter = made._adapter
    for owed in adapter.owed:
        adapter.taken(owed.key)
    refused, notice = events(told(made, ASKS[name]))
    assert (refused.kind, notice.kind, adapter.waiting) == ("unknown", "line_too_long", False)
    [owed] = adapter.owed
    reply = json.loads(owed.raw)
    assert owed.key == "reply:5"
    if name == "claude":
        assert (reply["response"]["subtype"], reply["response"]["request_id"]) == ("error", "5")
    else:
        assert reply["id"] == 5 and "too long" in reply["error"]["message"]
    adapter.taken(owed.key)
    told(made, ASKS[name])
    assert [owed.key != "reply:5" for owed in adapter.owed] == [True], "each is refused"


@pytest.mark.parametrize("name", ASKS)
def test_however_it_is_cut_and_wherever_it_is_gone_on_with_the_same_is_made_of_it(name):
    whole, cut = fold(name), fold(name)
    first = told(whole, ASKS[name], step=LINE_LIMIT * 9)
    raw = json.dumps(ASKS[name], ensure_ascii=False).encode() + b"\n"
    rows = cut.feed(raw[:5000])
    place = cut.place()
    again = StdoutFold(cut._run, adapter_for(cut._run))
    again.resume(place)
    rows += again.feed(raw[: LINE_LIMIT + 1])  # from the line's beginning
    middle = again.place()
    last = StdoutFold(cut._run, adapter_for(cut._run))
    last.resume(middle)
    rows += last.feed(raw[LINE_LIMIT + 1 :])

    def said(rows):
        return [row for row in rows if hasattr(row, "event")]

    assert said(rows) == said(first)
    assert last._adapter.owed == whole._adapter.owed


@pytest.mark.parametrize("seed", range(3))
def test_a_beginning_is_read_as_far_as_it_goes(seed):
    dice = random.Random(seed)

    def made(depth):
        if depth and dice.random() < 0.6:
            if dice.random() < 0.5:
                return [made(depth - 1) for _ in range(dice.randint(0, 4))]
            return {dice.choice(["a", 'b"', "c\\", "{d,"]): made(depth - 1) for _ in range(dice.randint(0, 4))}
        return dice.choice([1, -2.5, True, None, "", 'q"', "\\", "a,b", "[{", "é€"])

    def within(part, whole):
        if isinstance(part, dict):
            return isinstance(whole, dict) and all(name in whole and within(part[name], whole[name]) for name in part)
        if isinstance(part, list):
            return isinstance(whole, list) and len(part) <= len(whole) and all(map(within, part, whole))
        return part == whole

    for _ in range(200):
        value = {"x": made(4), "y": made(3)}
        raw = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode()
        for at in range(1, len(raw)):
            part = begun(raw[:at])
            assert part is not None and within(part, value), raw[:at]
        assert begun(raw) == value


@pytest.mark.parametrize("head", [b"", b"{}]", b"[1]", b"]", b'{"a" 1,', b'"{', b"\xff{", b"{" * 70000, b"[" * 70000])
def test_what_is_no_beginning_of_an_object_is_none(head):
    assert begun(head) is None


def test_what_lies_too_deep_is_left_out():
    assert begun(b'{"a":1,"b":' + b"[" * 70000)["a"] == 1
