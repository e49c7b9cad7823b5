"""The exit record as the daemon reads it, whatever the agent that owns its directory has made of the file."""

import pytest
from leasehold.processes.record import parse_exit

SOUND = {"run_id": 7, "token": "t", "state": "exited", "why": "exit", "exit_code": 3}


def test_a_record_is_read_and_fields_of_a_newer_keeper_are_left_out():
    ending = parse_exit({**SOUND, "signal": None, "colour": "red"}, 7)
    assert (ending.why, ending.exit_code, ending.signal) == ("exit", 3, None)


@pytest.mark.parametrize(
    "wreck", [{}, {"why": 5}, {**SOUND, "exit_code": "three"}, {**SOUND, "usage": []}, {**SOUND, "state": "asleep"}]
)
def test_a_wrecked_record_is_the_story_of_one_lost_run(wreck):
    ending = parse_exit(wreck, 7)
    assert (ending.run_id, ending.state, ending.why) == (7, "exited", "keeper_lost")
