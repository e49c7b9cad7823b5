"""Recorded lines with something missing, or something else in its place: a newer version may say them. Nothing raises, all is JSON."""

import json
import random

import pytest
from agents.replay import ALL, lines
from agents.runs import run_of
from leasehold.agents.registry import adapter_for
from leasehold.events.fold import storable

JUNK = (None, True, 0, 1.5, "", "x", [], {}, [1], {"a": 1}, ["x"], {"type": "text"}, [{"type": "tool_use"}])
ROUNDS = 400


def recorded(name):
    folder = name.replace("-", "_")
    return [json.loads(line) for path in ALL if path.parent.name == folder for line in lines(path)[1]]


def otherwise(dice, said):
    """The same, a little different."""
    if isinstance(said, list):
        return [otherwise(dice, each) for each in said]
    if not isinstance(said, dict):
        return said
    kept = {name: each for name, each in said.items() if dice.random() > 0.06}
    return {name: dice.choice(JUNK) if dice.random() < 0.1 else otherwise(dice, each) for name, each in kept.items()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["codex", "codex-exec", "claude"])
def test_a_known_line_of_another_shape_ends_nothing_by_accident(name, seed):
    dice, known = random.Random(seed), recorded(name)
    for _ in range(ROUNDS):
        adapter = adapter_for(run_of(name, session=dice.choice([None, "s-1"])))
        for _ in range(dice.randint(1, 6)):
            line = json.dumps(otherwise(dice, dice.choice(known))).encode()
            cut = dice.random() < 0.2
            for event in adapter.glimpse(line[: dice.randint(0, len(line))]) if cut else adapter.receive(line) or ():
                storable(event)
        again = adapter_for(run_of(name))
        again.thaw(json.loads(json.dumps(adapter.freeze())))
        for exit_code in (0, 1):
            verdict = adapter.verdict(exit_code)
            assert verdict == again.verdict(exit_code)
            assert isinstance(verdict.message, str | None)
            assert verdict.outcome != "succeeded" or verdict.reason is None
