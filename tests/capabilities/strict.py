"""The collection fails if a test carries a number that does not exist: a typing error would show nothing, silently."""

import pytest
from capabilities.ledger import numbers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at every `rule` of every test."""
    known = numbers()
    wrong = {
        f"{item.name}: there is no rule {number}"
        for item in items
        for mark in item.iter_markers("rule")
        for number in mark.args
        if number not in known
    }
    if wrong:
        raise pytest.UsageError("; ".join(sorted(wrong)))
