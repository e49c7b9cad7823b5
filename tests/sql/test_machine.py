"""Whatever order clients call in, and wherever they die: the rules of the database hold, and nothing is lost."""

import asyncio
import os
from collections import Counter
from time import monotonic

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sql.machine.history import History
from sql.machine.tales import Tales
from sql.machine.world import World

LIVES = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("always", LIVES, max_examples=20, stateful_step_count=30, derandomize=True)
settings.register_profile("machine", LIVES, max_examples=100, stateful_step_count=50)
MINUTES = float(os.environ.get("LEASEHOLD_MACHINE_MINUTES", "0"))


def live(dsn, profile):
    """Random lives in this database, one after the other. Answers how many, and how often somebody looked."""
    loop = asyncio.new_event_loop()
    world = World(loop, dsn)
    try:
        transitions = world.run(world.eye.fetch("select * from leasehold.transitions"))
        reasons = world.run(world.eye.fetch("select * from leasehold.reasons"))
        machine = type("Lives", (Tales,), {"world": world, "history": History(transitions, reasons)})
        run_state_machine_as_test(machine, settings=profile)
    finally:
        world.run(world.close())
        loop.close()
    return world.counted


@pytest.mark.rule("S5", "SW5", "G29")
@pytest.mark.timeout(600)
def test_no_order_of_calls_breaks_a_rule(dsn):
    live(dsn, settings.get_profile("always"))


@pytest.mark.skipif(not MINUTES, reason="`make machine` looks for longer, and at other lives each time")
@pytest.mark.timeout(MINUTES * 60 + 1800)
def test_for_longer(dsn):
    ends, counted = monotonic() + MINUTES * 60, Counter()
    while monotonic() < ends:
        counted += live(dsn, settings.get_profile("machine"))
        print(dict(counted), flush=True)
