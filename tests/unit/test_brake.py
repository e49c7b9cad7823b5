"""Whom the brake holds and whom it lets go, also when the keeper does not answer."""

from types import SimpleNamespace

import pytest
from leasehold.errors import KeeperAway
from leasehold.events.brake import CLOSELY, HOLD_ABOVE, Brake

RUN = SimpleNamespace(id=7, job_id=1, output_limit=None)


class Keeper:
    """Notes what it is asked, and may lose its answer."""

    def __init__(self):
        self.asked, self.deaf = [], False

    async def hold(self, run_id):
        self.asked.append(("hold", run_id))
        if self.deaf:
            raise KeeperAway

    async def release(self, run_id):
        self.asked.append(("release", run_id))
        if self.deaf:
            raise KeeperAway


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def tail():
    return SimpleNamespace(size=0, offset=0)


async def test_who_is_far_ahead_is_held_once_and_released_when_it_is_read(keeper, tail):
    brake = Brake(keeper)
    with brake.watching(RUN, [tail], held=False) as watched:
        tail.size = HOLD_ABOVE + 1
        await brake.look()
        await brake.look()
        tail.offset = tail.size
        await brake.look()
        await brake.look()
    assert keeper.asked == [("hold", 7), ("release", 7)]
    assert not watched.held


async def test_a_hold_whose_answer_is_lost_is_released_all_the_same(keeper, tail):
    brake = Brake(keeper)
    with brake.watching(RUN, [tail], held=False):
        tail.size, keeper.deaf = HOLD_ABOVE + 1, True
        await brake.look()
        tail.offset = tail.size
        await brake.look()  # this answer is lost too
        keeper.deaf = False
        await brake.look()
    assert keeper.asked == [("hold", 7), ("release", 7), ("release", 7)]


async def test_who_was_held_by_an_earlier_life_is_released(keeper, tail):
    brake = Brake(keeper)
    with brake.watching(RUN, [tail], held=True):
        await brake.look()
    assert keeper.asked == [("release", 7)]


async def test_who_was_just_let_go_is_watched_closely_and_a_calm_run_is_not(keeper, tail):
    brake = Brake(keeper)
    with brake.watching(RUN, [tail], held=False) as watched:
        assert not await brake.look()
        tail.size = HOLD_ABOVE + 1
        assert await brake.look()
        tail.offset = tail.size
        assert [await brake.look() for _ in range(5)] == [True] * 5
        assert not watched.held
        assert not [await brake.look() for _ in range(CLOSELY)][-1]
