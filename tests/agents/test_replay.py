"""Adapters are folds: what holds for every transcript, and for lines that no transcript has."""

import json

import pytest
from agents.replay import ALL, fresh, lines, tell, told
from agents.runs import run_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leasehold.agents.base import Conversing
from leasehold.agents.registry import ADAPTERS, adapter_for
from leasehold.models import Control

VOCABULARY = {
    "session", "message", "progress", "tool_call", "plan", "usage", "permission", "retrying", "rate_limited", "result",
    "error", "unknown", "delta", "question", "withdrawn", "turn", "artifact",
}  # fmt: skip
REAL = [name for name in ADAPTERS if name not in ("command", "codex", "acp")]
"""Whose lines have a `type`; those of JSON-RPC are in test_codex.py and test_acp.py."""
WORDS = st.sampled_from(
    [
        "subtype",
        "request",
        "request_id",
        "response",
        "event",
        "uuid",
        "isReplay",
        "item",
        "id",
        "message",
        "content",
        "usage",
        "error",
        "status",
        "text",
        "is_error",
        "result",
        "model",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from([
    "control_request", "control_response", "control_cancel_request",
    "thread.started", "turn.started", "item.started", "item.completed", "turn.completed", "turn.failed", "error",
    "system", "assistant", "user", "result", "rate_limit_event", "stream_event", "something.new",
])  # fmt: skip

each_transcript = pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")


def test_there_are_transcripts():
    assert len(ALL) > 30


@each_transcript
def test_every_line_is_understood_in_the_one_vocabulary_and_kept_beside_its_events(path):
    about, said = lines(path)
    adapter = fresh(path, about)
    tell(adapter, about, 0)
    for number, line in enumerate(said, 1):
        events = adapter.receive(line)
        tell(adapter, about, number)
        assert events is not None, line
        assert {event.kind for event in events} <= VOCABULARY
        if events and events[-1].kind != "delta":  # a piece is in the whole message again
            assert events[-1].data["raw"] == json.loads(line)


@each_transcript
def test_whoever_goes_on_from_a_frozen_state_hears_and_judges_the_same(path):
    about, said = lines(path)
    whole, taken_over = fresh(path, about), fresh(path, about)
    for number, line in enumerate([b"", *said]):
        state = json.loads(json.dumps(taken_over.freeze(), sort_keys=True))  # the database keeps no order of keys
        taken_over = adapter_for(run_of(run_name(path)))  # of a daemon that knows nothing else
        taken_over.thaw(state)
        if number:
            assert taken_over.receive(line) == whole.receive(line)
        assert tell(taken_over, about, number) == tell(whole, about, number)
        assert (taken_over.done, taken_over.in_tool) == (whole.done, whole.in_tool)
        assert taken_over.freeze() == whole.freeze()
    assert taken_over.verdict(about["exit_code"]) == whole.verdict(about["exit_code"])


@each_transcript
def test_whoever_begins_anew_at_any_line_owes_nothing_that_was_not_owed_before_and_comes_to_the_same_state(path):
    about, said = lines(path)
    whole = fresh(path, about)
    if not isinstance(whole, Conversing):
        pytest.skip("it is not spoken to")
    before = {}
    for number, line in enumerate([b"", *said]):
        if number:
            whole.receive(line)
        before |= {each.key: each.raw for each in tell(whole, about, number)}
        anew = fresh(path, about)
        for each in said[:number]:
            anew.receive(each)
        for each in range(number + 1):  # all that it was ever told is told again
            for control in told(about, each):
                anew.send(control)
        for owed in anew.owed:
            assert before[owed.key] == owed.raw
            anew.taken(owed.key)
        assert anew.freeze() == whole.freeze()
        assert (anew.waiting, anew.over, anew.ready) == (whole.waiting, whole.over, whole.ready)


def run_name(path):
    return path.parent.name.replace("_", "-")


@each_transcript
def test_no_transcript_that_is_cut_before_its_result_is_a_success(path):
    about, said = lines(path)
    adapter = fresh(path, about)
    for line in said:
        assert adapter.verdict(0).outcome != "succeeded"
        if "result" in {event.kind for event in adapter.receive(line)}:
            break


@pytest.mark.parametrize("path", [path for path in ALL if path.parent.name != "codex"], ids=str)
def test_the_session_is_known_with_the_first_line_if_at_all(path):
    about, said = lines(path)
    adapter = fresh(path, about)
    heard = [events for line in said if (events := adapter.receive(line))]  # a handshake means nothing
    if heard and "resume_unknown" not in path.stem:
        assert heard[0][0].kind == "session"
        assert heard[0][0].data["id"] == adapter.freeze()["session"]


@pytest.mark.parametrize("name", REAL)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # of a busy machine
@given(kind=TYPES, rest=st.dictionaries(WORDS, JSON, max_size=5))
def test_a_line_of_any_shape_is_kept_and_ends_nothing(name, kind, rest):
    adapter = adapter_for(run_of(name))
    events = adapter.receive(json.dumps({**rest, "type": kind}).encode())
    assert events is not None
    assert {event.kind for event in events} <= VOCABULARY
    assert all(event.message is None or isinstance(event.message, str) for event in events)
    json.dumps(adapter.freeze())
    adapter.verdict(0)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"words\n", b'{"no": "type"}', b'{"type": 1}', b"[" * 100_000]
)
def test_what_is_no_line_of_the_protocol_is_output(name, line):
    assert adapter_for(run_of(name)).receive(line) is None


@pytest.mark.parametrize("name", REAL)
def test_a_line_of_a_newer_version_is_kept_as_it_is(name):
    said = {"type": "thing.of.tomorrow", "colour": "blue"}
    (event,) = adapter_for(run_of(name)).receive(json.dumps(said).encode())
    assert (event.kind, event.level, event.data) == ("unknown", "debug", {"raw": said})


@pytest.mark.parametrize("name", REAL)
def test_silence_is_no_success(name):
    assert adapter_for(run_of(name)).verdict(0).reason == "protocol"
    assert adapter_for(run_of(name)).verdict(3).reason == "exit_code"


@pytest.mark.parametrize("name", REAL)
def test_a_run_that_was_to_go_on_with_a_session_and_ended_without_a_word_was_rejected(name):
    assert adapter_for(run_of(name, session="s-1")).verdict(1).reason == "session_rejected"


@pytest.mark.parametrize("name", REAL)
def test_the_prompt_is_no_argument_and_the_session_is_asked_for(name):
    start = adapter_for(run_of(name)).launch(
        run_of(name, ("/bin/agent", "-x", "{workspace}"), launcher=("nice",)), "/w"
    )
    assert start.argv[:2] == ("nice", "/bin/agent")
    assert "-x" in start.argv
    assert "/w" in start.argv
    assert "hello" not in start.argv
    assert start.stdin == (None if start.converses else b"hello")
    assert not {"resume", "--resume"} & set(start.argv)
    again = adapter_for(run_of(name)).launch(run_of(name, ("/bin/agent",), session="s-1"), "/w")
    assert {"resume", "--resume"} & set(again.argv)
    assert "s-1" in again.argv


@pytest.mark.parametrize("name", REAL)
def test_what_is_spoken_to_owes_the_prompt_from_the_beginning_and_hears_no_control_twice(name):
    adapter = adapter_for(run_of(name))
    start = adapter.launch(run_of(name, ("/bin/agent",)), "/w")
    assert isinstance(adapter, Conversing) == start.converses
    if not start.converses:
        return
    for control in (
        Control("steer", 7, "words"),
        Control("interrupt", 8),
        Control("answer", 9, data={"request": "nobody's"}),
    ):
        adapter.send(control)
        before = adapter.freeze()
        adapter.send(control)
        assert adapter.freeze() == before
    keys = [each.key for each in adapter.owed]
    assert len(set(keys)) == len(keys)
    assert not adapter.over
    assert all(each.raw.endswith(b"\n") and each.raw.count(b"\n") == 1 for each in adapter.owed)
