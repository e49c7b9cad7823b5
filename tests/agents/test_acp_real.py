"""The real agents behind ACP, through the adapter, against the scripted model: `make test-acp`. Without them this is skipped."""

from functools import partial

import pytest
from agents.acp_programs import acp_program as program
from agents.acp_talk import ALLOW, DENY, Cue, talk
from agents.cases import NOBODY
from agents.record_acp import ASKED, LONG
from agents.runs import run_of
from leasehold.agents.registry import adapter_for

__all__ = ["program"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def speak(program, model, repository, tmp_path):
    return partial(conversation, program, model, repository, tmp_path / "home")


def conversation(program, model, repository, home, prompt, *cues, scenario="ok", session=None):
    env = program.configure(home, model.url(scenario))
    run = run_of("acp", program.command, prompt=prompt, env=env, session=session, workspace=str(repository))
    adapter = adapter_for(run)
    talked = talk(adapter, adapter.launch(run, str(repository)), repository, cues)
    assert talked.left, "it did not leave when its stdin was closed"
    return talked, adapter.verdict(talked.exit_code)


def ending(verdict):
    return verdict.outcome, verdict.reason


def test_a_tool_is_allowed_a_file_is_changed_and_another_process_goes_on_with_the_session(
    program, speak, repository, model
):
    first, verdict = speak(ASKED, ALLOW)
    assert ending(verdict) == ("succeeded", None), first.stderr
    assert (repository / "proof.txt").read_text() == "hello\n"
    assert [event.data["status"] for event in first.the("tool_call")] == ["started", "finished"]
    assert verdict.result["text"] == "The proof is written."
    program.pause()
    second, verdict = speak("say: It goes on.", session=verdict.result["session"])
    assert ending(verdict) == ("succeeded", None), second.stderr
    assert [event.message for event in second.the("message")] == ["It goes on."]
    assert "The proof is written." in str(model.requests[-1][1]), "the model was told what had been said before"


def test_a_tool_that_is_denied_changes_nothing_and_is_no_success(speak, repository):
    _, verdict = speak(ASKED, DENY)
    assert ending(verdict) == ("failed", "disagreement")
    assert not (repository / "proof.txt").exists()


@pytest.mark.parametrize(
    "cues", [(Cue("permission", "interrupt"),), (ALLOW, Cue("permission", "interrupt", pause=2.5))]
)
def test_it_is_interrupted_while_it_asks_and_while_its_tool_runs(speak, cues):
    talked, verdict = speak(LONG, *cues)
    assert ending(verdict) == ("blocked", "turn_interrupted"), talked.stderr


@pytest.mark.parametrize(
    ("scenario", "outcome", "reason"), [("401", "failed", "auth"), ("429", "interrupted", "rate_limit")]
)
def test_what_the_provider_refuses_is_told_with_its_reason(program, speak, scenario, outcome, reason):
    if scenario in program.waits_out:
        pytest.skip(f"{program.name} waits that out without a word: the idle clock's matter, shown with others")
    talked, verdict = speak(ASKED, scenario=scenario)
    assert ending(verdict) == (outcome, reason), talked.stderr


def test_a_session_that_nobody_knows_is_rejected(speak):
    _, verdict = speak("say: It goes on.", session=NOBODY)
    assert ending(verdict) == ("failed", "session_rejected")
