"""Breadth first through every state within the bounds: the shortest way to a broken promise, or the proof that there is none.

Promises: One life (never two trees, none of a run that has ended), One verdict (what a run was is never changed), a cancelled
job starts no more; Nothing lost and bounded liveness: from every state the world can settle without another fault, and without
a healthy daemon's lease running out.
"""

from collections import defaultdict, deque
from typing import NamedTuple

from model import daemon, surroundings
from model.state import OVER, State


class Found(NamedTuple):
    """The end of a search: a broken promise with the steps to it, or none; and how much was looked at."""

    broken: str | None
    trace: tuple
    states: int
    complete: bool


def steps(world, state):
    yield from daemon.steps(world, state)
    yield from surroundings.steps(world, state)


def search(world, *, live=True, most=10_000_000):
    """Explore; `live` also asks whether everything can settle."""
    start = State()
    came_from = {start: None}
    back = defaultdict(list)
    queue = deque([start])
    while queue and len(came_from) < most:
        state = queue.popleft()
        for what, after in steps(world, state):
            if after == state:
                continue
            new = after not in came_from
            if new:
                came_from[after] = (state, what)
                queue.append(after)
            if broken := broken_promise(state, after):
                return Found(broken, (*trace(came_from, state), what), len(came_from), complete=False)
            if live and counts(what, state, after):
                back[after].append(state)
    if live and not queue and (stuck := first_stuck(world, came_from, back)):
        return Found("Nothing lost: it never settles", trace(came_from, stuck), len(came_from), complete=True)
    return Found(None, (), len(came_from), complete=not queue)


def broken_promise(before, after):
    """What no step may bring about."""
    living = [tree.run for tree in after.trees] + ([after.elsewhere] if after.elsewhere is not None else [])
    if len(living) > 1:
        return "One life: two trees"
    if any(after.runs[run].outcome for run in living):
        return "One life: a tree of a run that has ended"
    for was, now in zip(before.runs, after.runs, strict=False):
        if was.outcome and was.outcome != now.outcome:
            return "One verdict: another one"
    if before.cancel and len(after.runs) > len(before.runs):
        return "A cancelled job runs again"
    return None


def counts(what, before, after):
    """For settling: no more faults, and whoever lives renews in time."""
    if what.startswith("FAULT"):
        return False
    if what != "tick" or before.daemon is None:
        return True
    life = before.daemon.life
    return after.workers[life].lease > 0 or before.workers[life].lease == 0


def settled(world, state):
    """The job is over, or the bound is reached; nothing lives, and nothing that happened is untold."""
    over = state.job in OVER or (state.job == "queued" and len(state.runs) == world.runs)
    nobody = state.daemon is None and len(state.workers) == world.lives
    told = nobody or not [run for run, _ in state.records if not state.runs[run].forgotten]
    return over and told and not state.trees and state.elsewhere is None


def first_stuck(world, came_from, back):
    """The first state found from which none that is settled can be reached."""
    good = {state for state in came_from if settled(world, state)}
    queue = deque(good)
    while queue:
        for before in back[queue.popleft()]:
            if before not in good:
                good.add(before)
                queue.append(before)
    return next((state for state in came_from if state not in good), None)


def trace(came_from, state):
    """How we got there."""
    words = []
    while came_from[state] is not None:
        state, what = came_from[state]
        words.append(what)
    return tuple(reversed(words))
