"""`python -m model [large]`: search the small worlds (or the large ones, too), miss every rule, print a table.

If it fails, a rule of the protocol is wrong, superfluous, or not what the model says; nothing at run time depends on it.
"""

import sys
from time import monotonic

from model.scenarios import LARGE, RULES, SMALL
from model.search import search

MOST = 300_000
"""States of one world: beyond that a search is called off, and its line says so."""


def look(name, bounds):
    """Search one world and print a line; answers what was found."""
    began = monotonic()
    found = search(bounds, most=MOST)
    said = f"{found.broken} after {len(found.trace)} steps" if found.broken else "every promise is kept"
    said += "" if found.broken or found.complete else ", as far as we looked"
    print(f"{name:<84} {found.states:>9,} states {monotonic() - began:6.1f} s  {said}", flush=True)
    return found


def main(large):
    """Everything that must hold, then everything that must not."""
    wrong = []
    for name, bounds in (SMALL | LARGE if large else SMALL).items():
        found = look(name, bounds)
        if found.broken:
            wrong += [name, *found.trace]
    for number, rule in RULES.items():
        found = look(f"without rule {number}: {rule.says}", rule.missed._replace(without=frozenset({number})))
        if not found.broken:
            wrong.append(f"rule {number} is not missed")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main("large" in sys.argv[1:]))
