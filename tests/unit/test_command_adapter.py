"""The `command` dialect: placeholders, the vocabulary, and what the agent says of itself."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leasehold.agents.command import REASONS, VOCABULARY, CommandAdapter
from leasehold.models import Run, RunKey


def run(command=("agent",), prompt="do it", env=None, launcher=(), context=None):
    return Run(
        key=RunKey(7, uuid4()), job_id=42, attempt=3, tenant="acme", queue="default", agent="fixer", adapter="command",
        command=tuple(command), env=env or {}, workspace=None, launcher=tuple(launcher), prompt=prompt, payload={},
        limits={}, stop_grace=timedelta(seconds=10), total_timeout=None, status="starting", started_at=None,
        cancel_requested=False, stdout_shipped=0, stderr_shipped=0, events_mark=-1,
        context=context or {},
    )  # fmt: skip


def argv(*command, **given):
    return CommandAdapter().launch(run(command, **given), "/some/space").argv


def say(adapter, **words):
    return adapter.receive(json.dumps(words).encode() + b"\n")


def test_placeholders_are_filled_wherever_they_stand():
    assert argv("a", "{prompt}", "--in={workspace}/x", "{job_id}-{run_id}") == (
        "a",
        "do it",
        "--in=/some/space/x",
        "42-7",
    )


@pytest.mark.parametrize("word", ["{}", "{other}", "{{prompt", "%s", "$HOME", "{PROMPT}", "{ prompt }"])
def test_what_is_no_placeholder_is_left_as_it_is(word):
    assert argv(word) == (word,)


def test_a_prompt_that_contains_placeholders_is_left_as_it_is():
    assert argv("{prompt}{job_id}", prompt="{job_id}{prompt}") == ("{job_id}{prompt}42",)


@given(st.lists(st.sampled_from(["{prompt}", "{workspace}", "{job_id}", "{run_id}", "x", "{", "}", " "]), max_size=8))
def test_every_placeholder_is_filled_once_and_in_order(parts):
    words = {"{prompt}": "{run_id}", "{workspace}": "/some/space", "{job_id}": "42", "{run_id}": "7"}
    assert argv("".join(parts), prompt="{run_id}") == ("".join(words.get(part, part) for part in parts),)


def test_an_empty_word_stays_a_word():
    assert argv("a", "", "{prompt}", prompt="") == ("a", "", "")


def test_the_prompt_is_on_stdin_as_well():
    assert CommandAdapter().launch(run(prompt="Grüße\n"), "/w").stdin == "Grüße\n".encode()


def test_a_launcher_comes_first_and_its_own_words_stay():
    assert argv("a", "{prompt}", launcher=("bwrap", "{prompt}"))[:3] == ("bwrap", "{prompt}", "a")


@pytest.mark.rule("G35")
def test_a_run_knows_who_it_is_and_cannot_be_told_otherwise():
    env = CommandAdapter().launch(run(env={"KEY": "value", "LEASEHOLD_JOB_ID": "1"}), "/w").env
    assert env == {
        "KEY": "value", "LEASEHOLD_JOB_ID": "42", "LEASEHOLD_RUN_ID": "7", "LEASEHOLD_ATTEMPT": "3",
        "LEASEHOLD_TENANT": "acme",
    }  # fmt: skip


@pytest.mark.rule("O4", "O33")
@pytest.mark.parametrize("kind", VOCABULARY)
def test_every_word_of_the_vocabulary_is_an_event(kind):
    (event,) = say(CommandAdapter(), type=kind, id="m", message="hello", more=1)
    assert (event.kind, event.message, event.data) == (kind, "hello", {"id": "m", "message": "hello", "more": 1})
    assert event.level == ("error" if kind == "error" else "info")


@pytest.mark.rule("A13")
@pytest.mark.parametrize(
    "line",
    [
        b"{}", b'{"type": "hello"}', b'{"type": null}', b'{"type": ["message"]}', b'{"type": {"a": 1}}', b'{"type": 1}',
        b'{"message": "x"}', b"{broken", b'[{"type": "message"}]', b'"message"', b"null", b"", b"\x00", b"\xff\xfe{",
        b'{"type": "message"} trailing', b'{"type": "Message"}', b"{" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"type": "message", "n": ' + b"9" * 5000 + b"}", b'{"type": "delta", "text": "of none"}', b'{"type": "delta", "id": "m"}',
    ],
)  # fmt: skip
def test_any_other_line_is_output(line):
    assert CommandAdapter().receive(line) is None


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail(line):
    CommandAdapter().receive(line)
    CommandAdapter().receive(b'{"type":"message","x":' + line + b"}")


def test_the_message_is_the_first_text_there_is():
    adapter = CommandAdapter()
    assert say(adapter, type="message", text="b")[0].message == "b"
    assert say(adapter, type="tool_call", name="grep")[0].message == "grep"
    assert say(adapter, type="message", message="", text="b", name="c")[0].message == "b"
    assert say(adapter, type="message", message={"a": 1})[0].message is None


def test_only_progress_moves_the_phase():
    adapter = CommandAdapter()
    assert say(adapter, type="progress", phase="testing")[0].phase == "testing"
    assert say(adapter, type="progress", phase=3)[0].phase is None
    assert say(adapter, type="message", phase="testing")[0].phase is None


def test_an_agent_that_says_nothing_succeeds_by_exit_code_zero():
    verdict = CommandAdapter().verdict(0)
    assert (verdict.outcome, verdict.reason, verdict.result) == ("succeeded", None, None)


@pytest.mark.parametrize("code", [1, 3, 126, 255])
def test_a_non_zero_exit_fails_whatever_the_agent_says(code):
    adapter = CommandAdapter()
    say(adapter, type="result", ok=True, value={"n": 1})
    verdict = adapter.verdict(code)
    assert (verdict.outcome, verdict.reason, verdict.result) == ("failed", "exit_code", {"n": 1})
    assert str(code) in verdict.message


def test_exit_zero_does_not_hide_a_result_that_is_not_ok():
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False, message="tests are red", left=3)
    verdict = adapter.verdict(0)
    assert (verdict.outcome, verdict.reason, verdict.message) == ("failed", "agent_error", "tests are red")
    assert verdict.result == {"left": 3}


def test_a_failure_without_words_gets_some():
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False)
    assert adapter.verdict(0).message == "the agent said that it failed"


def test_the_last_result_counts():
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False)
    say(adapter, type="result", ok=True, value=[1, 2])
    assert (adapter.verdict(0).outcome, adapter.verdict(0).result) == ("succeeded", [1, 2])


def test_a_replay_rebuilds_the_same_verdict():
    def play():
        adapter = CommandAdapter()
        say(adapter, type="message", message="x")
        say(adapter, type="result", ok=False, message="no")
        return adapter.verdict(0)

    assert play() == play()


@pytest.mark.parametrize(
    ("said", "result"),
    [({"value": 1}, 1), ({"value": None, "a": 1}, None), ({"a": 1}, {"a": 1}), ({"message": "x"}, None), ({}, None)],
)
def test_a_result_is_its_value_else_what_else_it_says(said, result):
    adapter = CommandAdapter()
    say(adapter, type="result", **said)
    assert adapter.verdict(0).result == result


def test_an_error_event_alone_fails_nothing():
    adapter = CommandAdapter()
    say(adapter, type="error", message="could not reach the cache")
    assert adapter.verdict(0).outcome == "succeeded"


def test_the_context_of_a_wake_is_in_the_environment_if_there_is_one_and_it_fits():
    def told(context):
        return CommandAdapter().launch(run(context=context), "/w").env.get("LEASEHOLD_CONTEXT")

    assert json.loads(told({"wakeReason": "Grüße", "issueId": 7})) == {"wakeReason": "Grüße", "issueId": 7}
    assert told({}) is None
    assert told({"long": "x" * ((64 << 10) - len('{"long": ""}'))}) is not None
    assert told({"long": "ü" * (32 << 10)}) is None


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(("reason", "outcome"), REASONS.items())
def test_an_agent_may_name_the_reason_of_its_end(reason, outcome, code):
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False, reason=reason, resets_at=1900000000)
    verdict = adapter.verdict(code)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.message and verdict.result == {"reason": reason, "resets_at": 1900000000}


@pytest.mark.parametrize("said", [{"reason": "worker_lost"}, {"reason": ["quota"]}, {"reason": None}])
def test_a_reason_that_is_not_the_agents_to_name_is_an_error_of_the_agent(said):
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False, **said)
    assert (adapter.verdict(0).outcome, adapter.verdict(0).reason) == ("failed", "agent_error")


def test_who_has_succeeded_has_no_reason_to_name():
    adapter = CommandAdapter()
    say(adapter, type="result", ok=True, reason="quota")
    assert adapter.verdict(0).outcome == "succeeded"


def test_a_session_to_go_on_with_is_in_command_and_environment():
    command = CommandAdapter().launch(replace(run(("agent", "--resume={session}")), session="s-1"), "/w")
    assert command.argv == ("agent", "--resume=s-1")
    assert command.env["LEASEHOLD_SESSION"] == "s-1"
    alone = CommandAdapter().launch(run(("agent", "--resume={session}")), "/w")
    assert alone.argv == ("agent", "--resume=")
    assert "LEASEHOLD_SESSION" not in alone.env


def test_the_moment_of_a_reset_is_kept_beside_a_value():
    adapter = CommandAdapter()
    say(adapter, type="result", ok=False, reason="quota", resets_at="2030-01-01T12:00:00Z", value={"done": 3})
    assert adapter.verdict(0).result["resets_at"] == "2030-01-01T12:00:00Z"
    assert adapter.verdict(0).result["value"] == {"done": 3}
