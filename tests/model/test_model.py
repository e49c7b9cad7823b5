"""The model keeps every promise with all rules on, and misses each of them: a model that cannot fail proves nothing."""

import pytest
from model.scenarios import RULES, SMALL
from model.search import search
from model.state import State, Tree


@pytest.mark.parametrize("name", SMALL)
def test_with_all_rules_every_promise_is_kept_in_every_state(name):
    found = search(SMALL[name])
    assert found.complete and found.broken is None, "\n".join((found.broken, *found.trace))


@pytest.mark.parametrize("number", RULES, ids=lambda number: f"rule-{number}")
def test_without_the_rule_a_promise_is_broken(number):
    """All 20, one at a time; the trace is the shortest there is."""
    found = search(RULES[number].missed._replace(without=frozenset({number})))
    assert found.broken, f"nothing misses rule {number}: {RULES[number].says}"
    assert found.trace


def test_the_twenty_rules_are_all_here():
    assert list(RULES) == list(range(1, 21))


def test_states_are_values():
    """The search rests on it: the same world is the same state, however it came about."""
    one, two = State(trees=(Tree(0, 1),)), State()._replace(trees=(Tree(0, 1),))
    assert one == two and hash(one) == hash(two)
