"""Everything around host A's daemon: its keeper and agents, host B, the user, time, and what may go wrong."""

from model.daemon import gone
from model.database import claimable, ended, failover, late_failover, lost, opened, reap
from model.state import B, Spawn, Tree, replaced


def steps(world, state):
    """All that may happen next but what the daemon does; a fault's words begin with FAULT."""
    yield from keeper(world, state)
    yield from agents(state)
    yield from other(world, state)
    if "cancel" in world.kinds and not state.cancel and state.job == "running":
        yield "somebody asks for a cancel", state._replace(cancel=True)
    yield "tick", tick(world, state)
    if state.faults < world.faults:
        for what, after in faults(world, state):
            if what in world.kinds:
                yield f"FAULT: {what}", after._replace(faults=state.faults + 1)


def keeper(world, state):
    """Read the socket; after a death, begin again with a sweep."""
    if state.keeper and state.wire:
        first, *rest = state.wire
        state = state._replace(wire=tuple(rest))
        if state.tree(first.run) or state.record(first.run):
            yield f"the keeper knows run {first.run}", state
        elif not first.deadline and world.has(3):
            records = tuple(sorted((*state.records, (first.run, "lost"))))
            yield f"the keeper refuses run {first.run}: too late", state._replace(records=records)
        else:
            trees = (*state.trees, Tree(first.run, first.deadline))
            yield f"the keeper starts run {first.run}", state._replace(trees=trees)
    for spawn in state.rebels:
        left = tuple(each for each in state.rebels if each is not spawn)
        words = f"the superseded daemon says hello again and asks for run {spawn.run}"
        yield words, state._replace(rebels=left, wire=(*state.wire, spawn))
    if not state.keeper:
        state = state._replace(keeper=True)
        for tree in state.trees if world.has(14) else ():
            state = state.without_tree(tree.run, "lost")
        state = state._replace(trees=tuple(tree._replace(known=False) for tree in state.trees))
        yield "a new keeper begins", state


def agents(state):
    """An agent gives its result; its tree goes when it likes."""
    for index, tree in enumerate(state.trees):
        if not tree.said:
            yield (
                f"the agent of run {tree.run} says it is done",
                state._replace(trees=replaced(state.trees, index, said=True)),
            )
        elif tree.known and state.keeper:
            yield f"the tree of run {tree.run} ends", state.without_tree(tree.run, "done")


def other(world, state):
    """Host B claims, runs, settles and reaps, and nothing ever befalls it."""
    if claimable(world, state) and state.elsewhere is None:
        yield f"B claims and starts run {len(state.runs)}", opened(state, B)._replace(elsewhere=len(state.runs))
    if state.elsewhere is not None:
        yield f"run {state.elsewhere} ends on B", ended(state._replace(elsewhere=None), state.elsewhere, "done")
    after = reap(world, state)
    if after != state:
        yield "B reaps", after
    if "clone" in world.kinds and not world.has(9):
        for index, run in enumerate(state.runs):
            if run.live and run.owner != B:
                yield f"B, a clone of A, adopts and ends run {index}", lost(world, state, index)


def tick(world, state):
    """Time passes. A tree whose deadline passed a tick ago has been killed by now: that is what the margin is for."""
    killer = state.keeper or (world.has(15) and state.daemon is not None)
    for tree in state.trees:
        if killer and tree.known and not tree.deadline:
            state = state.without_tree(tree.run, "lost")
    return state._replace(
        workers=tuple(each._replace(lease=less(each.lease), still=less(each.still)) for each in state.workers),
        closed=less(state.closed),
        daemon=aged(state.daemon),
        ghosts=tuple(each._replace(proof=less(each.proof)) for each in state.ghosts),
        rebels=tuple(each._replace(deadline=less(each.deadline)) for each in state.rebels),
        wire=tuple(each._replace(deadline=less(each.deadline)) for each in state.wire),
        trees=tuple(each._replace(deadline=less(each.deadline)) for each in state.trees),
    )


def aged(daemon):
    if daemon is None:
        return None
    calls = {
        slot: each and each._replace(proof=less(each.proof))
        for slot, each in (("claim", daemon.claim), ("lease", daemon.lease))
    }
    held = tuple(each._replace(deadline=less(each.deadline)) for each in daemon.held)
    return daemon._replace(proved=less(daemon.proved), held=held, **calls)


def less(count):
    return count - 1 if count else 0


def faults(world, state):
    """What may go wrong at any moment."""
    daemon = state.daemon
    if daemon is not None:
        yield "the daemon is killed", gone(state)
        for slot in ("claim", "lease"):
            call = getattr(daemon, slot)
            if call is not None and call.answer is not None and call.kind != "adopt":
                yield "an answer is lost", state._replace(daemon=daemon._replace(**{slot: None}))
        if daemon.up:
            waiting = () if world.has(6) else [each for each in daemon.held if not each.asked]
            rebels = tuple(Spawn(each.run, each.deadline, daemon.life + 1) for each in waiting)
            yield "a second daemon supersedes the first", gone(state)._replace(rebels=rebels)
    if state.keeper:
        yield "the keeper is killed", state._replace(keeper=False, wire=())
    if any(worker.lease for worker in state.workers):
        stepped = tuple(worker._replace(lease=0) for worker in state.workers)
        yield "the database's clock steps", state._replace(workers=stepped)
    if state.runs and state.runs[-1].live and state.elsewhere is None:
        yield "failover", failover(world, state, len(state.runs) - 1)
        yield "failover", late_failover(world, state)
