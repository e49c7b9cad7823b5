"""What the daemon makes of a stage while it lives: whose clocks run, and when it is stopped from outside."""

import json
from dataclasses import replace

import pytest
from agents.runs import run_of
from leasehold.models import Exit
from leasehold.runs.staging import RECORDING, SLACK, Staging, _changes
from leasehold.workspaces.place import Place, own_place


@pytest.fixture
def staging(tmp_path):
    def make(plan):
        return Staging(run_of("command", ["x"]), Place("/w", "agent_repository", plan=plan), tmp_path)

    return make


@pytest.fixture
def says(tmp_path):
    def say(**facts):
        (tmp_path / "stage.json").write_text(json.dumps(facts))

    return say


def test_while_it_makes_ready_the_agents_clocks_stand_and_its_own_ends_it(staging, says):
    one = staging({"prepare_timeout": 100})
    assert one.busy, "before it has said anything"
    says(phase="preparing")
    one.look(1.0)
    assert one.busy and one.late(1.0, 100 + SLACK) is None and one.late(1.0, 102 + SLACK) == "prepare"
    says(phase="agent", agent_at=50.0, agent_stderr=7)
    assert (one.look(51.0).said, one.busy, one.late(1.0, 1e6)) == (7, False, None)


def test_an_agent_does_not_stop_its_clocks_by_wrecking_the_report(staging, says, tmp_path):
    one = staging({"prepare_timeout": 100})
    says(phase="agent", agent_at=50.0, agent_stderr=7)
    one.look(51.0)
    for wreck in ({"phase": "preparing"}, {}):
        says(**wreck)
        assert one.look(52.0).agent_at == 50.0 and not one.busy
    (tmp_path / "stage.json").unlink()
    one.look(53.0)
    assert not one.busy
    says(phase="recording", agent_at=50.0)
    one.look(60.0)
    assert one.busy and one.late(1.0, 60 + RECORDING) is None and one.late(1.0, 61 + RECORDING) == "linger"


@pytest.mark.parametrize("phase", ["over", "anything"])
def test_an_agent_does_not_stop_its_clocks_by_saying_that_it_is_over(staging, says, phase):
    one = staging({"prepare_timeout": 100})
    says(phase="agent", agent_at=50.0)
    one.look(51.0)
    says(phase=phase, agent_at=50.0)
    one.look(60.0)
    assert one.late(1.0, 60 + RECORDING) is None and one.late(1.0, 61 + RECORDING) == "linger"
    says(phase="agent", agent_at=50.0)
    one.look(62.0)
    assert not one.busy


def test_who_waits_to_bring_a_copied_credential_back_is_given_the_time(tmp_path, says):
    config = {"credential": {"wait": 60.0, "hold": "copy"}}
    one = Staging(run_of("claude", ["x"]), Place("/w", "run", config=config), tmp_path)
    says(phase="recording", agent_at=1.0)
    one.look(10.0)
    assert one.late(1.0, 69 + RECORDING) is None and one.late(1.0, 71 + RECORDING) == "linger"


def test_a_run_without_a_stage_has_its_clocks_from_the_beginning(tmp_path, says):
    says(phase="preparing")
    run = run_of("command", ["x"])
    one = Staging(run, own_place(run, tmp_path), tmp_path)
    one.look(1.0)
    assert not one.busy and one.late(0.0, 1e9) is None and one.judged(Exit(1, "", "exited", "exit", 1)) is None


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ("workspace", "workspace_failed"),
        ("timeout", "workspace_timeout"),
        ("not_found", "spawn_not_found"),
        ("denied", "spawn_denied"),
        ("new", "workspace_failed"),
    ],
)
def test_why_there_was_no_agent_is_the_runs_reason_unless_somebody_ended_it(staging, says, failed, reason):
    one = staging({})
    says(phase="preparing", failed={"kind": failed, "step": "look", "message": "no \0"})
    assert one.judged(Exit(1, "", "exited", "exit", 125)).reason == reason
    assert one.judged(Exit(1, "", "exited", "exit", 125)).message == "look: no \ufffd"
    assert one.judged(Exit(1, "", "exited", "cancelled", 125)) is None
    says(phase="over", recording_at=1.0, failed={"kind": failed, "step": "record", "message": "no"})
    assert one.judged(Exit(1, "", "exited", "exit", 0)) is None, "there was an agent"


def test_a_secret_is_in_no_reason_and_in_no_diff(tmp_path, says):
    run = replace(run_of("command", ["x"]), env={"API_KEY": "sesame-7-open"})
    one = Staging(run, Place("/w", "agent_repository", plan={}), tmp_path)
    says(phase="preparing", failed={"kind": "workspace", "step": "prepare 1", "message": "it said: sesame-7-open"})
    assert one.judged(Exit(1, "", "exited", "exit", 125)).message == "prepare 1: it said: *************"
    (tmp_path / "changes.json").write_text(json.dumps({"changes": [{"path": "a", "change_type": "added"}]}))
    (tmp_path / "final.diff").write_text("+key = sesame-7-open\n")
    assert _changes(run, tmp_path) == ([{"path": "a", "change_type": "added"}], "+key = *************\n")
