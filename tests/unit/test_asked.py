"""What nobody will ever be asked is known, so that no run waits for an answer to it."""

import json
from dataclasses import replace

import pytest
from leasehold.agents.claude import Claude
from leasehold.events.asked import can_be_asked
from leasehold.events.fold import StdoutFold
from leasehold.models import Event
from unit.test_channel import RUN


def request(number, tool="Bash", **given):
    asked = {"subtype": "can_use_tool", "tool_name": tool, "input": given or {"command": "ls"}}
    return json.dumps({"type": "control_request", "request_id": f"r{number}", "request": asked}).encode() + b"\n"


def withdrawal(number):
    return json.dumps({"type": "control_cancel_request", "request_id": f"r{number}"}).encode() + b"\n"


def fold(**more):
    run = replace(RUN, **more)
    return StdoutFold(run, Claude(run))


def kinds(rows):
    return [row.event.kind for row in rows if hasattr(row, "event")]


NOISE = b"".join(json.dumps({"type": "news", "n": n}).encode() + b"\n" for n in range(30))


def test_whoever_floods_may_ask_all_the_same():
    one = fold(events_limit=10)
    assert kinds(one.feed(NOISE)) == ["unknown"] * 10 + ["events_truncated"]
    assert kinds(one.feed(request(1))) == ["permission"]
    assert not one.unasked


def test_what_is_asked_over_the_limit_is_asked_of_nobody():
    one = fold(events_limit=3)
    for number in range(4):
        one.feed(request(number))
    assert one.unasked
    one.feed(withdrawal(3))
    assert not one.unasked, "it does not wait for it any more"


def test_what_the_database_would_not_take_is_asked_of_nobody():
    one = fold()
    assert kinds(one.feed(request(1, "AskUserQuestion", questions=[]))) == ["question"]
    assert one.unasked


def test_it_is_known_in_the_next_life():
    one, again = fold(events_limit=3), fold(events_limit=3)
    for number in range(4):
        one.feed(request(number))
    again.resume(one.place())
    assert again.unasked and kinds(again.feed(request(9))) == []


def test_a_decision_of_the_agents_own_asks_nobody():
    one = fold(events_limit=1)
    said = {"type": "system", "subtype": "permission_denied", "tool_name": "Bash", "tool_use_id": "t"}
    one.feed(NOISE + 2 * (json.dumps(said).encode() + b"\n"))
    assert not one.unasked


ONE = {"id": "a", "options": [{"id": "x"}]}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("permission", ONE), ("permission", {"id": 7}), ("permission", {"id": ""}), ("permission", {"id": " "}), ("permission", {}),
        ("permission", {"id": True}), ("permission", {"id": "i" * 501}), ("permission", {"id": "i" * 500}),
        ("permission", {**ONE, "options": {}}), ("permission", {**ONE, "options": [{"id": ""}]}), ("permission", {**ONE, "options": ["x"]}),
        ("permission", {**ONE, "options": [{"id": None}]}), ("permission", {**ONE, "options": [{"id": 0}]}), ("permission", {**ONE, "options": None}),
        ("question", {"id": "a"}), ("question", {"id": "a", "questions": []}), ("question", {"id": "a", "questions": [{"id": "q"}]}),
    ],
)  # fmt: skip
async def test_it_is_as_the_database_sees_it(sql, kind, data):
    mistake = await sql.fetchval("SELECT leasehold.asked_mistake($1, $2::jsonb)", kind, json.dumps(data))
    assert can_be_asked(Event(kind, None, data)) == (mistake is None)
