"""The table of capabilities: each numbered rule, and the tests that show it or the reason why none does."""

from collections import Counter
from pathlib import Path

from capabilities import ledger
from capabilities.ledger import Rule

FILE = Path(__file__).parent / "TABLE.md"
HEAD = """# Which test shows which rule

Made by `make capabilities` from the marks on the tests and the ledger beside this file; not edited by hand.
The numbers are those of the rules taken over from five earlier systems (S, A, P, G, O) and of the new ones (X).
A second letter W marks a fault of theirs: its line says the fault, its test shows that it is not here.
"""
TITLES = {
    "S": "S: jobs of a coding service", "A": "A: runs, sessions and a queue of tasks", "P": "P: wakeups, agents, issues",
    "G": "G: the same on Postgres", "O": "O: subagents of a chat", "X": "X: what one daemon on one database adds",
}  # fmt: skip
MOST = 3
"""Tests named for one number; the rest are counted."""


def fate(rule: Rule, shown: dict[str, list[str]]) -> str:
    """What became of a rule: shown, not yet, not taken over; or missing."""
    return "shown" if shown.get(rule.number) else rule.kind or "missing"


def line(rule: Rule, shown: dict[str, list[str]]) -> str:
    """One row of the table."""
    tests = shown.get(rule.number, [])
    more = f" and {len(tests) - MOST} more" if len(tests) > MOST else ""
    said = ", ".join(f"`{test}`" for test in tests[:MOST]) + more if tests else f"*{fate(rule, shown)}*: {rule.excuse}"
    return f"| {rule.number} | {rule.says} | {said} |"


def counts(shown: dict[str, list[str]]) -> dict[str, Counter[str]]:
    """How many rules of each family have which fate."""
    return {family: Counter(fate(rule, shown) for rule in ledger.read(family)) for family in ledger.RANGES}


def summary(shown: dict[str, list[str]]) -> str:
    """The counts as a table, with their sum below."""
    rows = counts(shown)
    rows["all"] = sum(rows.values(), Counter())
    said = "".join(
        f"| {name} | {row.total()} | {row['shown']} | {row['not yet']} | {row['not taken over']} |\n"
        for name, row in rows.items()
    )
    return f"| family | numbers | shown | not yet | not taken over |\n|---|---|---|---|---|\n{said}"


def render(shown: dict[str, list[str]]) -> str:
    """The whole file."""
    parts = [HEAD]
    for family in ledger.RANGES:
        title = TITLES.get(family) or f"{family}: faults that must not come back"
        rows = "\n".join(line(rule, shown) for rule in ledger.read(family))
        parts.append(f"## {title}\n\n| number | rule | shown by |\n|---|---|---|\n{rows}\n")
    return "\n".join([*parts, "## Counts\n", summary(shown)])
