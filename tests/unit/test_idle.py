"""How long the claim sleeps when there is nothing to be had."""

from leasehold.runs.claim import LONGEST_MISS, Idle

POLL = 30.0


def test_it_looks_again_soon_after_going_idle_then_at_the_pace_of_the_poll():
    idle = Idle()
    assert [idle.pause(POLL, None) for _ in range(2)] == [0.1, 1.0]
    assert 0.8 * POLL <= idle.pause(POLL, None) <= 1.2 * POLL


def test_it_sleeps_no_longer_than_until_the_next_job_is_due():
    assert Idle(looks=2).pause(POLL, 2.5) == 2.5


def test_what_is_due_and_held_by_somebody_is_looked_at_less_and_less_often():
    idle = Idle(looks=2)
    pauses = [idle.pause(POLL, 0.0) for _ in range(2000)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.005
    assert pauses[-1] == LONGEST_MISS


def test_after_that_a_job_due_soon_is_not_late():
    idle = Idle(looks=2)
    for _ in range(12):
        idle.pause(POLL, 0.0)
    assert idle.pause(POLL, 0.2) == 0.2
    assert idle.pause(POLL, 0.0) == 0.005
