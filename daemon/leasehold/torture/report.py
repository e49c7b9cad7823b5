"""What was found: a row for each case, and the sum of them. Pure."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

OK, NOT_CAUGHT, NOT_CLAIMED, NOT_TRIED = "ok", "NOT CAUGHT", "not claimed", "not tried"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table. `story` is the job's, where something is wrong with it."""

    tried: str
    expected: str
    caught_by: str
    seconds: float | None
    verdict: str
    story: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """The table, and what it was measured on. What escaped on a rung that does not claim it is told apart."""

    containment: dict[str, Any]
    findings: list[Finding]
    left_behind: list[str]
    escaped: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Did everything that this host claims to catch get caught?"""
        return not self.left_behind and all(each.verdict != NOT_CAUGHT for each in self.findings)

    @property
    def counts(self) -> Counter[str]:
        """How many of each verdict."""
        return Counter(each.verdict for each in self.findings)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}
