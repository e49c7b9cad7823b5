"""An ACP agent that no table knows, as a real process: a row with its command is all there is to adding it."""

import sys
from pathlib import Path

import pytest
from agents.acp_talk import ALLOW, DENY, Cue, talk
from agents.runs import run_of
from leasehold.agents.quirks import TABLE
from leasehold.agents.registry import adapter_for

AGENT = (sys.executable, str(Path(__file__).with_name("acp_agent.py")))


@pytest.fixture
def speak(tmp_path):
    def with_it(prompt, *cues, session=None):
        run = run_of("acp", AGENT, prompt=prompt, session=session, workspace=str(tmp_path))
        adapter = adapter_for(run)
        talked = talk(adapter, adapter.launch(run, str(tmp_path)), tmp_path, cues, patience=20)
        assert talked.left
        assert adapter.freeze()["agent"] not in TABLE
        return talked, adapter.verdict(talked.exit_code)

    return with_it


def test_it_does_what_it_is_told_and_leaves(speak):
    talked, verdict = speak("think: hm\nsay: Hello there")
    assert (verdict.outcome, verdict.reason, verdict.result["text"]) == ("succeeded", None, "Hello there ")
    assert [event.kind for event in talked.events if event.kind != "delta"] == [
        "progress", "session", "progress", "progress", "message", "usage", "result",
    ]  # fmt: skip


@pytest.mark.parametrize(("cue", "outcome", "reason"), [(ALLOW, "succeeded", None), (DENY, "failed", "disagreement")])
def test_what_it_asks_is_answered_by_the_kind_of_its_options(speak, tmp_path, cue, outcome, reason):
    talked, verdict = speak("write: proof.txt\nsay: That was it.", cue)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert (tmp_path / "proof.txt").exists() == (outcome == "succeeded")
    assert [event.data["status"] for event in talked.the("tool_call")] == ["started", "finished"]


def test_its_form_is_filled_in(speak):
    cue = Cue("question", "answer", data={"decision": "allow", "answers": {"colour": ["Blue"], "count": ["2"]}})
    _, verdict = speak("form: ", cue)
    assert verdict.result["text"] == '{"action": "accept", "content": {"colour": "b", "count": 2}} '


@pytest.mark.parametrize("prompt", ["slowly: ", "write: proof.txt"])
def test_it_is_interrupted_while_it_speaks_and_while_it_asks(speak, prompt):
    _, verdict = speak(prompt, Cue("delta" if prompt == "slowly: " else "permission", "interrupt"))
    assert (verdict.outcome, verdict.reason) == ("blocked", "turn_interrupted")


def test_it_goes_on_with_its_session_in_another_process_and_says_nothing_twice(speak):
    first, _ = speak("say: one")
    session = first.the("session")[0].data["id"]
    second, verdict = speak("say: two", session=session)
    assert second.the("session")[0].data["id"] == session
    assert [event.message for event in second.the("message")] == ["two "]
    assert verdict.outcome == "succeeded"
    _, verdict = speak("say: two", session="nobody")
    assert verdict.reason == "session_rejected"


def test_it_is_told_more_while_it_is_at_work(speak):
    talked, verdict = speak("write: a\nsay: one", Cue("permission", "prompt", "say: two"), ALLOW)
    assert "".join(event.message for event in talked.the("delta")) == "one two "
    assert verdict.outcome == "succeeded"


@pytest.mark.parametrize(
    ("prompt", "outcome", "reason"),
    [
        ("fail: Incorrect API key", "failed", "auth"), ("fail: 429 Too Many Requests", "interrupted", "rate_limit"),
        ("stop: refusal", "failed", "refusal"), ("leave: ", "failed", "protocol"), ("stop: end_turn", "failed", "empty_output"),
    ],
)  # fmt: skip
def test_how_it_fails_is_told(speak, prompt, outcome, reason):
    _, verdict = speak(prompt)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_it_is_refused_the_files_it_was_not_offered(speak):
    _, verdict = speak("read: ")
    assert "-32601" in verdict.result["text"]
