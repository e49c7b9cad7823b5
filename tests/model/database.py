"""What the SQL functions do, each in one step: claim, renew, adopt, finish, reap; and what a failover undoes."""

from model.state import B, Run, replaced

REFUSED = ("refused",)


def serve(world, state, call):
    """Commit a call of a life of A; the state after it, and the answer."""
    worker = state.workers[call.life]
    fenced = world.has(8) if call.kind == "adopt" else world.has(12)
    if fenced and (worker.state != "alive" or not worker.lease):
        return state, REFUSED
    return {"claim": claim, "renew": renew, "adopt": adopt}[call.kind](world, state, call)


def claim(world, state, call):
    if not claimable(world, state):
        return state, ()
    return opened(state, call.life), (len(state.runs),)


def claimable(world, state):
    return state.job == "queued" and not state.closed and len(state.runs) < world.runs


def opened(state, owner):
    """A new run. After a failover its id is one that was given before."""
    number = next((run.number for run in state.runs if run.forgotten), len(state.runs))
    return state._replace(job="running", runs=(*state.runs, Run(number, owner)))


def renew(world, state, call):
    """The answer: ("lost", run), ("unnamed", run), ("cancel", run)."""
    own = [index for index, run in enumerate(state.runs) if run.live and run.owner == call.life]
    answer = [("lost", run) for run in call.runs if run not in own]
    if world.has(10):
        answer += [("unnamed", run) for run in own if run not in call.runs]
    if state.cancel:
        answer += [("cancel", run) for run in own]
    return held_on(world, state, call.life), tuple(answer)


def held_on(world, state, life):
    """The lease begins anew, and its counter moves."""
    return state._replace(workers=replaced(state.workers, life, lease=world.lease, still=world.lease))


def adopt(world, state, call):
    """Take what the keeper has of older lives, end the rest, close those lives. The answer: ("adopted", run)."""
    state = held_on(world, state, call.life)
    if world.has(8):
        for life in range(call.life):
            if state.workers[life].state == "alive":
                state = state._replace(workers=replaced(state.workers, life, state="closed", lease=0))
    answer = []
    for index, run in enumerate(state.runs):
        older = run.owner <= call.life if world.has(8) else run.owner != call.life
        if not run.live or run.owner == B or not older:
            continue
        if index in call.runs:
            state = state._replace(runs=replaced(state.runs, index, owner=call.life))
            answer.append(("adopted", index))
        elif run.owner != call.life:
            state = lost(world, state, index)
    return state, tuple(answer)


def finish(world, state, run, outcome):
    """The verdict of a run whose tree is gone: the first one stays, a late outcome is written once."""
    if not world.has(19):  # whoever has that id now
        number = state.runs[run].number
        run = max(index for index, each in enumerate(state.runs) if each.number == number)
    row = state.runs[run]
    if row.forgotten:
        return state
    if row.live:
        return ended(state, run, outcome) if outcome == "done" else lost(world, state, run)
    if row.outcome == "lost" and not row.late:
        state = state._replace(runs=replaced(state.runs, run, late=True))
        if outcome == "done" and state.job == "queued" and run == len(state.runs) - 1 and not state.cancel:
            return state._replace(job="done")
    return state


def ended(state, run, outcome):
    return state._replace(job="done", runs=replaced(state.runs, run, outcome=outcome))


def lost(world, state, run, *, reaping=False):
    """A run that came to nothing: its job goes back to the queue, unless somebody has asked for its end."""
    cancelled = state.cancel and (world.has(16) or not reaping)
    job = "cancelled" if cancelled else "queued"
    return state._replace(job=job, runs=replaced(state.runs, run, outcome="lost"))


def reap(world, state):
    """Close the workers that are seen dead, then end the runs of all that are closed."""
    if state.closed:
        return state
    for life, worker in enumerate(state.workers):
        if worker.state == "alive" and not worker.lease and not (worker.still and world.has(17)):
            state = state._replace(workers=replaced(state.workers, life, state="lost"))
    gone = ("lost", "closed") if world.has(12) else ("lost",)
    for index, run in enumerate(state.runs):
        if run.live and run.owner != B and state.workers[run.owner].state in gone:
            state = lost(world, state, index, reaping=True)
    return state


def failover(world, state, run):
    """A replica is promoted that has not seen this claim, nor what came after it; claim and reap are closed for a lease."""
    state = closed(world, state)._replace(job="queued", cancel=False)
    return state._replace(runs=replaced(state.runs, run, forgotten=True))


def late_failover(world, state):
    """A replica is promoted that has not seen the last renewals: the leases there have run out."""
    old = tuple(each._replace(lease=0, still=world.lease) for each in state.workers)
    return closed(world, state)._replace(workers=old)


def closed(world, state):
    return state._replace(closed=world.lease if world.has(18) else 0)
