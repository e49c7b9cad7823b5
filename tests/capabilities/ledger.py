"""The ledger: every numbered rule in a few words of ours, and why no test shows it if none does. Only the table rests on it."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parent / "ledger"
RANGES = {"S": 126, "SW": 41, "A": 94, "AW": 40, "P": 93, "PW": 51, "G": 50, "GW": 29, "O": 36, "OW": 21, "X": 35}
"""How many numbers each family has. A second letter W: faults of earlier systems; a test shows that we don't have them."""

NOT_YET = {
    "storage": "a session's row says on which host and in which directory it is kept, and until when; no daemon measures its size, and there is no digest",
    "secrets": "secrets and credentials are no rows to choose among; a run has its agent's environment, and a login's file of its host",
    "logins": "a run is lent the login of its agent, alone or as a copy; none is made for it",
    "health": "doctor tells of database and schema, queue_stats of depth and age; that the listener lives, and when was the last claim, reap and tick, nobody tells",
}
NOT_TAKEN = {
    "forge": "forks, branches and pull requests belong to whoever asks; a job's result carries them",
    "form": "one project's settings form; agents and jobs have columns of their own for what of it counts here",
    "review": "one product's review of upstream changes; a job's result carries such a decision",
    "ui": "the state of one product's editor window",
    "memory": "there is no second store in memory to choose; Postgres is the only one",
    "container": "one cluster's volumes and container jobs; a launcher runs agents elsewhere",
    "merged": "two rows for one thing: here it is the job, whose own rules are shown",
    "lock": "one tracker's tickets; here there are concurrency keys, which need no row of their own",
    "timezone": "times are Postgres timestamps, rendered by whoever reads them",
}


class Rule(NamedTuple):
    """A number, what it says, and the kind and key of the reason why it need not be shown (empty: it must be)."""

    number: str
    says: str
    kind: str
    why: str

    @property
    def excuse(self) -> str:
        """The reason in words."""
        return {"not yet": NOT_YET, "not taken over": NOT_TAKEN}[self.kind][self.why] if self.kind else ""


LINE = re.compile(r"(?P<number>[A-Z]+\d+) +(?P<says>.+?)(?: +\[(?P<kind>not yet|not taken over): (?P<why>\w+)\])?")


def read(family: str) -> list[Rule]:
    """The rules of one family, in the order of the file."""
    lines = (HOME / f"{family}.txt").read_text().splitlines()
    found = [LINE.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(found), f"{family}.txt: what is {lines[found.index(None)]!r}?"
    return [Rule(*(group or "" for group in one.groups())) for one in found if one]


def settle(shown: Collection[str]) -> list[str]:
    """Take back the excuses of what is shown by now: from here on, its test is missed when it goes. Answers the numbers."""
    settled = []
    for family in RANGES:
        file = HOME / f"{family}.txt"
        lines = file.read_text().splitlines()
        for place, line in enumerate(lines):
            found = LINE.fullmatch(line)
            if found and found["kind"] == "not yet" and found["number"] in shown:
                lines[place] = line[: found.end("says")]
                settled.append(found["number"])
        file.write_text("\n".join(lines) + "\n")
    return settled


def numbers() -> set[str]:
    """Every number there is."""
    return {f"{family}{n}" for family, most in RANGES.items() for n in range(1, most + 1)}
