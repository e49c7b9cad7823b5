"""What the daemon of host A does: begin a life, call the database, hear answers, spawn, settle."""

from model.database import REFUSED, finish, serve
from model.state import Call, Daemon, Held, Spawn, Worker


def steps(world, state):
    """All that host A's daemon, dead or alive, may do next; and the database with its calls."""
    yield from commits(world, state)
    if state.daemon is None:
        yield from begin(world, state)
    else:
        yield from hear(world, state)
        if state.daemon.up:
            yield from call(world, state)
            yield from spawn(world, state)
            yield from stop(state)
            yield from settle(world, state)


def begin(world, state):
    """Hello, list, register; then the adoption is on its way."""
    life = len(state.workers)
    if life == world.lives or not state.keeper:
        return
    if world.has(5):
        state = state._replace(wire=())  # what older epochs have written is dropped unread
    if not world.has(7):
        state = extended(state, [tree.run for tree in state.trees], world.proof)
    kept = tuple(sorted({tree.run for tree in state.trees if tree.known} | {run for run, _ in state.records}))
    worker = Worker("alive", world.lease, world.lease)
    adoption = Call("adopt", life, kept, world.proof)
    yield (
        f"A says hello and registers life {life}",
        state._replace(workers=(*state.workers, worker), daemon=Daemon(life, lease=adoption)),
    )


def commits(world, state):
    """The database serves a call that is on its way, of the living and of the dead."""
    for ghost in state.ghosts:
        after, _ = serve(world, state, ghost)
        left = tuple(each for each in state.ghosts if each is not ghost)
        yield f"{ghost.kind} of dead life {ghost.life} commits", after._replace(ghosts=left)
    for slot in ("claim", "lease") if state.daemon else ():
        sent = getattr(state.daemon, slot)
        if sent is not None and sent.answer is None:
            after, answer = serve(world, state, sent)
            daemon = state.daemon._replace(**{slot: sent._replace(answer=answer)})
            yield f"{sent.kind} of life {sent.life} commits: {answer}", after._replace(daemon=daemon)


def call(world, state):
    """Claim when there is room, renew when it proves more or something is unknown here."""
    daemon = state.daemon
    if daemon.claim is None and not daemon.held and state.job == "queued" and len(state.runs) < world.runs:
        sent = Call("claim", daemon.life, proof=daemon.proved)  # rule 1: what was proved before it
        yield "A sends a claim", state._replace(daemon=daemon._replace(claim=sent))
    named = tuple(held.run for held in daemon.held)
    own = {index for index, run in enumerate(state.runs) if run.live and run.owner == daemon.life}
    if daemon.lease is None and (daemon.proved < world.proof or own - set(named) or (state.cancel and own)):
        sent = Call("renew", daemon.life, named, world.proof, quiet=daemon.claim is None)
        yield f"A sends a renewal naming {named}", state._replace(daemon=daemon._replace(lease=sent))


def hear(world, state):
    """An answer arrives."""
    daemon = state.daemon
    for slot in ("claim", "lease"):
        heard = getattr(daemon, slot)
        if heard is None or heard.answer is None:
            continue
        if heard.answer == REFUSED:
            yield f"A hears that its {heard.kind} is refused, and leaves", gone(state)
            continue
        after = state._replace(daemon=daemon._replace(**{slot: None}))
        proof = heard.proof if world.has(4) else world.proof
        react = {"claim": claimed, "renew": renewed, "adopt": adopted}[heard.kind]
        yield f"A hears of its {heard.kind}: {heard.answer}", react(world, after, heard, proof)


def claimed(_world, state, heard, _proof):
    return admitted(state, alive(state, heard.answer), heard.proof)


def adopted(_world, state, heard, proof):
    ours = [run for _, run in heard.answer]
    state = state._replace(daemon=state.daemon._replace(up=True, proved=proof))
    return extended(admitted(state, ours, proof), ours, proof)


def renewed(world, state, heard, proof):
    daemon = state.daemon._replace(proved=proof)
    stop = {run for what, run in heard.answer if what in ("lost", "cancel")}
    moved = set(heard.runs) - {run for what, run in heard.answer if what == "lost"}
    held = tuple(
        each._replace(
            deadline=max(each.deadline, proof if each.run in moved else 0), stop=each.stop or each.run in stop
        )
        for each in daemon.held
    )
    state = extended(state._replace(daemon=daemon._replace(held=held)), moved, proof)
    here = {each.run for each in held}
    unnamed = alive(state, [run for what, run in heard.answer if what == "unnamed" and run not in here])
    quiet = heard.quiet and state.daemon.claim is None
    return admitted(state, unnamed, proof) if quiet or not world.has(11) else state


def alive(state, runs):
    """Before anything is started its body is read, and only live runs of ours have one."""
    return [run for run in runs if state.runs[run].live and state.runs[run].owner == state.daemon.life]


def admitted(state, runs, deadline):
    """Into the roster; what the keeper has of them is not asked for again."""
    new = [Held(run, deadline, bool(state.tree(run) or state.record(run))) for run in runs]
    return state._replace(daemon=state.daemon._replace(held=tuple(sorted((*state.daemon.held, *new)))))


def extended(state, runs, deadline):
    """The keeper moves deadlines, never back, and not of trees that it is killing."""
    trees = tuple(
        tree._replace(deadline=max(tree.deadline, deadline)) if tree.run in runs and tree.deadline else tree
        for tree in state.trees
    )
    return state._replace(trees=trees) if state.keeper else state


def gone(state):
    """The process ends; its calls that have not been served may still be."""
    sent = [slot for slot in (state.daemon.claim, state.daemon.lease) if slot is not None and slot.answer is None]
    return state._replace(daemon=None, ghosts=tuple(sorted((*state.ghosts, *sent), key=str)))


def spawn(world, state):
    """Ask the keeper for what is held and not asked for."""
    daemon = state.daemon
    for held in daemon.held:
        if held.asked or not state.keeper:
            continue
        deadline = held.deadline
        if not world.has(1):
            deadline = world.proof
        if not world.has(2):
            deadline = daemon.proved
        roster = tuple(each._replace(asked=True) if each is held else each for each in daemon.held)
        bytes_ = (*state.wire, Spawn(held.run, deadline, daemon.life))
        after = state._replace(daemon=daemon._replace(held=roster), wire=bytes_)
        yield f"A asks for run {held.run}, deadline in {deadline}", after


def stop(state):
    """Ask the keeper for the end of a run; of one that it has not started it writes that it never will."""
    on_the_wire = {each.run for each in state.wire}
    for held in state.daemon.held:
        if held.stop and state.keeper and held.run not in on_the_wire:
            roster = tuple(
                each._replace(asked=True, stop=False) if each is held else each for each in state.daemon.held
            )
            after = state._replace(daemon=state.daemon._replace(held=roster))
            if not state.record(held.run):
                after = after.without_tree(held.run, "lost")
            yield f"A has run {held.run} stopped", after


def settle(world, state):
    """Tell the database of what has ended, ours or not, then let the run directory go; end trees that are not ours."""
    if not state.keeper:
        return
    held = {each.run: each for each in state.daemon.held}
    for run, outcome in state.records:
        deliverable = state.runs[run].live or world.has(20)
        if deliverable:
            yield f"A settles run {run} as {outcome}", forgotten(finish(world, state, run, outcome), run)
    for tree in state.trees:
        if tree.run not in held and tree.known and not state.daemon.claim:
            yield f"A ends the stranger, run {tree.run}", state.without_tree(tree.run, "lost")
        if tree.run in held and tree.said and not world.has(13):
            yield f"A settles run {tree.run} on the agent's word", finish(world, state, tree.run, "done")
    known = {tree.run for tree in state.trees if tree.known} | {run for run, _ in state.records}
    for run in held.keys() - known - {each.run for each in state.wire}:
        if held[run].asked:
            yield (
                f"A settles run {run}, which its keeper does not know",
                forgotten(finish(world, state, run, "lost"), run),
            )


def forgotten(state, run):
    """Nothing is left of it here."""
    held = tuple(each for each in state.daemon.held if each.run != run or not each.asked)
    records = tuple(each for each in state.records if each[0] != run)
    return state._replace(daemon=state.daemon._replace(held=held), records=records)
