"""JSON-RPC in lines: what is a message, and of which kind."""

import json

import pytest
from leasehold.agents import jsonrpc
from leasehold.agents.jsonrpc import read


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"id": 0, "method": "ask", "params": {}}, "request"),
        ({"jsonrpc": "2.0", "id": "a", "method": "ask"}, "request"),
        ({"method": "tell", "params": {"a": 1}}, "notification"),
        ({"id": 1, "result": None}, "answer"),
        ({"id": "turn:1/steer", "error": {"code": -1, "message": "no"}}, "answer"),
    ],
)
def test_what_kind_of_message_it_is(said, kind):
    assert read(said).kind == kind


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"id": 1},
        {"id": None, "result": 1},
        {"id": True, "method": "ask"},
        {"id": None, "method": "ask"},
        {"method": 1},
        {"type": "x"},
    ],
)
def test_what_is_no_message(said):
    assert read(said) is None


def test_what_is_sent_can_be_read_with_and_without_the_version():
    for version in (True, False):
        for line, kind in (
            (jsonrpc.request("a", "ask", {"b": "c\nd"}, version=version), "request"),
            (jsonrpc.notification("tell", version=version), "notification"),
            (jsonrpc.answer(0, {"ok": True}, version=version), "answer"),
            (jsonrpc.refusal(7, "nobody is there", version=version), "answer"),
        ):
            assert line.count(b"\n") == 1
            said = json.loads(line)
            assert read(said).kind == kind
            assert ("jsonrpc" in said) == version


def test_an_error_of_any_shape_has_words():
    assert read({"id": 1, "error": {"message": "no"}}).trouble == "no"
    assert read({"id": 1, "error": "no"}).trouble == "no"
    assert read({"id": 1, "error": {"code": 7}}).trouble == "{'code': 7}"
    assert read({"id": 1, "result": 1}).trouble == ""
