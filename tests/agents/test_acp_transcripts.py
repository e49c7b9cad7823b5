"""What the real ACP agents said when they were recorded, and what is made of it. Without the programs this is what is known of them."""

import json
import random

import pytest
from agents.replay import HERE, lines
from agents.runs import run_of
from agents.test_other_shapes import otherwise
from leasehold.agents.acp import Acp
from leasehold.events.fold import storable
from leasehold.models import Control

ALL = sorted((HERE / "acp").glob("*/*.jsonl"))
VOCABULARY = {
    "session", "message", "delta", "progress", "tool_call", "plan", "usage", "permission", "question", "withdrawn", "turn",
    "retrying", "rate_limited", "result", "error", "unknown",
}  # fmt: skip

each_transcript = pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")


class Replayed:
    """One conversation again: its lines and its controls in the order in which they came; the keeper takes each key once."""

    def __init__(self, path, *, late=False, checkpoint=None):
        self.about, self.said = lines(path)
        run = run_of("acp", session=self.about["resumed"], prompt=self.about["prompt"], workspace="/workspace")
        self.fold, self.events, self.told = Acp(run), [], {}
        self.take()
        for number, line in enumerate(self.said):
            self.hear(run, line, frozen=checkpoint is not None and number % checkpoint == 0)
            if not late:
                self.control(number + 1)
        if late:  # a daemon that died: it has read everything before it hears of them again
            for number in range(len(self.said) + 1):
                self.control(number)
        self.verdict = self.fold.verdict(self.about["exit_code"])

    def hear(self, run, line, *, frozen):
        if frozen:
            state = json.loads(json.dumps(self.fold.freeze()))
            self.fold = Acp(run)
            self.fold.thaw(state)
        events = self.fold.receive(line)
        assert events is not None, line
        if events and events[-1].kind != "delta":
            assert events[-1].data["raw"] == json.loads(line)
        self.events += events
        self.take()

    def control(self, number):
        for after, control in self.about["sent"]:
            if after == number:
                self.fold.send(Control(**control))
                self.take()

    def take(self):
        for owed in self.fold.owed:
            self.told.setdefault(owed.key, owed.raw)
            self.fold.taken(owed.key)

    def the(self, kind):
        return [event for event in self.events if event.kind == kind]

    def kinds(self):
        return [event.kind for event in self.events if event.kind not in ("progress", "unknown", "delta")]


def of(program, case):
    return Replayed(HERE / "acp" / program / f"{case}.jsonl")


def test_there_are_transcripts():
    assert len(ALL) > 20


ENDS = {
    "ok": ("succeeded", None), "resume": ("succeeded", None), "resume_unknown": ("failed", "session_rejected"),
    "deny": ("failed", "disagreement"), "tool_fails": ("succeeded", None), "more": ("succeeded", None),
    "interrupted_asking": ("blocked", "turn_interrupted"), "interrupted_in_tool": ("blocked", "turn_interrupted"),
    "interrupted_speaking": ("blocked", "turn_interrupted"), "400": ("failed", "agent_error"), "401": ("failed", "auth"),
    "429": ("interrupted", "rate_limit"), "quota": ("interrupted", "quota"), "overflow": ("failed", "context_overflow"),
}  # fmt: skip
"""However differently they say it."""


@each_transcript
def test_how_it_ends(path):
    said = Replayed(path)
    assert (said.verdict.outcome, said.verdict.reason) == ENDS[path.stem]
    assert said.about["left"], "it had to be stopped"


@pytest.mark.parametrize("program", ["opencode", "claude-agent-acp", "codex-acp", "gemini"])
def test_a_good_run_in_order(program):
    said = of(program, "ok")
    assert [kind for kind in said.kinds() if kind != "usage"] == [
        "session", "tool_call", "permission", "tool_call", "message", "result",
    ]  # fmt: skip
    begun, ended = said.the("tool_call")
    assert (begun.message, begun.data["status"]) == ("echo hello > proof.txt", "started")
    assert (ended.data["id"], ended.data["status"], ended.data["ok"]) == (begun.data["id"], "finished", True)
    assert said.verdict.result["text"] == "The proof is written."
    assert sum(event.data.get("output_tokens", 0) for event in said.the("usage")) in {40, 100, 90, 80}


@pytest.mark.parametrize("program", ["opencode", "claude-agent-acp", "codex-acp", "gemini"])
def test_a_resumed_session_says_only_what_is_new(program):
    first, second = of(program, "ok"), of(program, "resume")
    assert second.about["resumed"] == first.the("session")[0].data["id"] == second.the("session")[0].data["id"]
    assert [event.message for event in second.the("message")] == ["It goes on."]
    assert second.the("tool_call") == []


def test_what_a_session_of_opencode_cost_counts_on_in_another_process():
    costs = [of("opencode", case).the("usage")[-1].data for case in ("ok", "resume")]
    assert costs[0]["cost_usd"] < costs[1]["cost_usd"]
    assert {each["counter"] for each in costs} == {"session"}


@each_transcript
def test_every_line_is_understood_in_the_one_vocabulary(path):
    said = Replayed(path)
    assert {event.kind for event in said.events} <= VOCABULARY
    news = [event for event in said.the("unknown") if event.data["raw"].get("method") == "session/update"]
    assert news == [], "an update that has no name here"
    assert said.fold.over
    assert not said.fold.waiting


@each_transcript
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_whoever_goes_on_from_a_checkpoint_hears_owes_and_judges_the_same(path, checkpoint):
    whole, again = Replayed(path), Replayed(path, checkpoint=checkpoint)
    assert (again.events, again.told, again.verdict) == (whole.events, whole.told, whole.verdict)


@each_transcript
def test_whoever_reads_it_from_the_start_and_hears_of_the_controls_last_judges_the_same(path):
    whole, again = Replayed(path), Replayed(path, late=True)
    assert again.verdict == whole.verdict
    assert (again.fold.over, again.fold.waiting) == (True, False)
    for event in whole.the("message"):
        assert event in again.events


@each_transcript
def test_what_is_cut_short_is_no_success(path):
    about, said = lines(path)
    fold = Acp(run_of("acp", session=about["resumed"], prompt=about["prompt"], workspace="/workspace"))
    for line in said:
        if not fold.done:
            assert fold.verdict(0).outcome != "succeeded"
            fold.receive(line)


@pytest.mark.parametrize("seed", range(4))
def test_a_known_line_of_another_shape_ends_nothing_by_accident(seed):
    dice, known = random.Random(seed), [json.loads(line) for path in ALL for line in lines(path)[1]]
    for _ in range(300):
        fold = Acp(run_of("acp", session=dice.choice([None, "s-1"]), workspace="/workspace"))
        for _ in range(dice.randint(1, 6)):
            for event in fold.receive(json.dumps(otherwise(dice, dice.choice(known))).encode()) or ():
                storable(event)
        again = Acp(run_of("acp", workspace="/workspace"))
        again.thaw(json.loads(json.dumps(fold.freeze())))
        assert again.verdict(0) == fold.verdict(0)
        assert all(json.loads(owed.raw)["jsonrpc"] == "2.0" for owed in fold.owed)
