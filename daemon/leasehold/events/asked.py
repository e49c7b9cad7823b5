"""What an agent has asked although nobody will ever be asked: it must not be waited for. Pure; if it fails, one run fails."""

from collections.abc import Iterable, Mapping
from typing import Any

from leasehold.models import Event

ASKS = ("question", "permission")
MOST = 100
"""Ids that are remembered: one is enough."""
LONGEST = 500
"""Characters of an id that the database takes."""


class Unasked:
    """By their ids. They did not fit into the run's limit of events, or the database will make no interaction of them."""

    def __init__(self, before: Iterable[str] = ()) -> None:
        self._ids = list(before)

    def __bool__(self) -> bool:
        return bool(self._ids)

    def see(self, event: Event, *, told: bool) -> None:
        """One event; `told`: it goes to the database."""
        ident = str(event.data.get("id"))
        if event.kind in ASKS and event.data.get("decision") is None:
            if not (told and can_be_asked(event)) and ident not in self._ids:
                self._ids = [*self._ids, ident][-MOST:]
        elif event.kind == "withdrawn" and ident in self._ids:
            self._ids.remove(ident)

    def freeze(self) -> list[str]:
        """As JSON."""
        return list(self._ids)


def can_be_asked(event: Event) -> bool:
    """Does the database take it (`asked_mistake` there)?"""
    ident = event.data.get("id")
    known = isinstance(ident, str | int | float) and not isinstance(ident, bool) and str(ident).strip(" ") != ""
    listed = event.data.get("questions") if event.kind == "question" else event.data.get("options", [])
    if (
        not known
        or len(str(ident)) > LONGEST
        or not isinstance(listed, list)
        or (event.kind == "question" and not listed)
    ):
        return False
    return all(isinstance(each, dict) and _named(each) for each in listed)


def _named(choice: Mapping[str, Any]) -> bool:
    return choice.get("id") not in (None, "")
