"""What a step may be, drawn at random: the strategies. Frequent things stand in a list more than once."""

import hypothesis.strategies as st
from sql.machine.asks import Cancel, Delete, Insert, Retry
from sql.machine.goes import Deregister, Reap, Sweep, Watch
from sql.machine.governs import Failover, Hold, Lift, Limit, Most, Pause, Switch
from sql.machine.keys import Enqueue, Wake
from sql.machine.lates import ReadLate, ShipLate
from sql.machine.money import Budget, Converse, Report, Tell
from sql.machine.speaks import REASONS, WRONG, Checkpoint, Finish, Say, Ship, Start, Stop, Suspect, Trim, Unkillable
from sql.machine.talks import Answer, CancelTurn, Carry, Turn, Unanswered
from sql.machine.talks import Converse as Talk
from sql.machine.works import Adopt, Claim, Expire, Read, Register, Renew

few, many = st.integers(0, 5), st.integers(0, 11)
agents, tenants, queues = (
    st.sampled_from(names)
    for names in (["free", "narrow", "hasty", "talker"], ["default", "limited"], ["default", "slow"])
)
keys = st.sampled_from([None, None, "k", "k", "l"])
repositories, threads = st.sampled_from([None, None, "repo"]), st.sampled_from([None, "t"])
POLICIES = ["coalesce", "coalesce", "coalesce", "defer", "reject", "return_existing", "allow"]
some = st.none() | st.lists(few, max_size=3).map(tuple)
honest = st.sampled_from([True, True, True, False])


def voices(*what):
    return st.lists(st.tuples(few, honest, *what), min_size=1, max_size=3).map(tuple)


stream, place = st.sampled_from(["stdout", "stderr"]), st.integers(0, 6)
inserts = st.builds(
    Insert, agents, tenants, queues, keys, attempts=st.integers(1, 3), ahead=st.sampled_from([0, 0, 30, -30]),
    many=st.integers(1, 3), priority=st.sampled_from([0, 0, 7]),
    policy=st.sampled_from(["defer"] * 5 + POLICIES), repository=repositories, thread=threads,
)  # fmt: skip
asked = (
    agents,
    tenants,
    keys,
    st.sampled_from(POLICIES),
    st.integers(0, 3),
    st.sampled_from([None, None, "i"]),
    threads,
    repositories,
)
enqueues, wakes = st.builds(Enqueue, *asked), st.builds(Wake, *asked)
cancels, retries, deletes = st.builds(Cancel, many), st.builds(Retry, many), st.builds(Delete, many)
pauses = st.builds(Pause, agents, st.sampled_from([False, False, True]))
most = st.sampled_from([None, None, 0, 1, 3])
limits = st.one_of(
    st.builds(Limit, st.just("agents"), agents, most),
    st.builds(Limit, st.just("tenants"), tenants, most, st.sampled_from([False, False, True])),
    st.builds(Limit, st.just("queues"), queues, most, st.sampled_from([False, False, True])),
)
mosts = st.builds(Most, st.sampled_from(["all", "hosts", "repositories"]), most)
held = st.sampled_from([
    ("all", ""), ("tenant", "default"), ("queue", "slow"), ("agent", "free"), ("account", "shared"), ("host", "host"),
    ("repository", "default/repo"),
])  # fmt: skip
holds = st.builds(
    lambda what, *ends: Hold(*what, *ends),
    held,
    st.sampled_from([None, -5, 0, 10, 60]),
    st.sampled_from([None, 10, 30]),
)
lifts, switches = st.builds(Lift, few), st.builds(Switch, agents, st.sampled_from([True, True, False]))
registers = st.builds(
    Register, st.sampled_from(["alpha", "beta"]), st.sampled_from(["keeper-1"] * 4 + ["keeper-2"]),
    st.sampled_from(["boot-1"] * 4 + ["boot-2"]), st.sampled_from([None, None, ("slow",)]),
)  # fmt: skip
claims = st.builds(Claim, few, slots=st.integers(1, 4))
renews = st.builds(Renew, few, some)
adopts = st.builds(Adopt, few, some, st.sampled_from([False, False, True]))
watches, reaps = st.builds(Watch, few), st.builds(Reap, few, st.sampled_from(["all", "fair", "stale"]))
reads = st.builds(Read, few, some)
leaves, expires, sweeps = st.builds(Deregister, few), st.builds(Expire, few), st.builds(Sweep, few)
by = st.sampled_from([None, None, None, 0, 1, 2])
ends = st.sampled_from(
    [("succeeded", None)] * 4 + [("failed", "exit_code")] * 4 + [("lost", "worker_lost")] * 2 + WRONG + REASONS
)
forged = st.sampled_from([False] * 5 + [True])
finishes = st.builds(lambda run, by, how, forged: Finish(run, by, *how, forged=forged), few, by, ends, forged)
starts, stops, suspects, unkillables = (
    st.builds(step, few, by, forged=forged) for step in (Start, Stop, Suspect, Unkillable)
)
says = st.builds(Say, voices(st.none() | place))
ships = st.builds(Ship, voices(stream, place, st.sampled_from([b"a", b"bc"])))
trims = st.builds(Trim, voices(stream, place, place))
checkpoints = st.builds(Checkpoint, voices(place))
mark = st.integers(0, 11)
reports = st.builds(
    lambda honest, said: Report(tuple((run, honest, mark) for run, mark in said)),
    honest, st.lists(st.tuples(few, mark), min_size=1, max_size=3),
)  # fmt: skip
converses = st.builds(Converse, few, by, forged=forged)
tells = st.builds(lambda run, by, mark, forged: Tell(run, by, mark=mark, forged=forged), few, by, mark, forged)
budgets = st.builds(
    lambda what, *more: Budget(*what, *more), st.sampled_from([("agent", "free"), ("agent", "hasty"), ("tenant", "default")]),
    st.sampled_from(["day", "total"]), st.sampled_from([None, 1, 10, 10, 50]),
)  # fmt: skip
near, chunk = st.integers(0, 3), st.sampled_from([b"a", b"bc", b"def"])
pours = st.one_of(
    checkpoints,
    converses,
    st.builds(lambda honest, mark: Report(((0, honest, mark),)), honest, mark),
    st.builds(lambda mark: Tell(0, mark=mark), mark),
    st.builds(lambda honest, mark: Say(((0, honest, mark),)), honest, near),
    st.builds(lambda honest, at, chunk: Ship(((0, honest, "stdout", at, chunk),)), honest, near, chunk),
    st.builds(lambda honest, start, more: Trim(((0, honest, "stdout", start, start + more),)), honest, near, near),
)
lates = st.one_of(st.builds(ReadLate, voices()), st.builds(ShipLate, few, by, place, forged=forged))
turns = st.builds(
    Turn, many, st.sampled_from(["steer", "steer", "prompt", "interrupt"]), st.sampled_from([False, False, True])
)
unturns, answers = st.builds(CancelTurn, few), st.builds(Answer, few, st.sampled_from(["allow", "deny"]))
carries, unanswereds = st.builds(Carry, few, st.integers(0, 3)), st.builds(Unanswered, few)
words = st.sampled_from(["permission", "permission", "withdrawn", "ended", "refused"])
talks = st.builds(Talk, voices(words, st.integers(0, 2)))
conversation = st.one_of(turns, turns, unturns, answers, carries, carries, unanswereds, talks, talks)
asks = st.one_of(inserts, inserts, enqueues, wakes, wakes, cancels, retries, deletes, turns)
governs = st.one_of(pauses, limits, limits, mosts, holds, lifts, lifts, budgets, budgets, switches, st.just(Failover()))
leases = st.one_of(renews, reads, adopts, adopts, reaps, reaps, watches, leaves, expires, registers, sweeps)
speaks = st.one_of(
    starts, starts, stops, suspects, unkillables, says, ships, trims, checkpoints, lates, reports, tells, converses
)
thing = st.one_of(asks, conversation, governs, claims, claims, leases, speaks, finishes, finishes)
pairs = [
    (claims, claims), (claims, claims), (claims, claims), (inserts, claims), (finishes, reaps), (reaps, reaps), (adopts, renews), (adopts, finishes), (cancels, finishes),
    (cancels, claims), (retries, retries), (enqueues, enqueues), (says, finishes), (ships, reaps),
    (expires, claims), (expires, cancels), (lates, finishes), (stops, finishes), (unkillables, reaps), (inserts, finishes),
    (wakes, wakes), (wakes, claims), (wakes, finishes), (wakes, cancels), (enqueues, retries), (holds, claims), (deletes, retries),
    (sweeps, retries), (wakes, inserts), (limits, claims), (lifts, claims),
    (turns, finishes), (turns, claims), (turns, carries), (turns, reaps), (turns, turns), (talks, answers), (talks, finishes), (talks, cancels),
    (answers, answers), (answers, finishes), (answers, unanswereds), (unanswereds, finishes), (carries, finishes), (talks, turns),
    (reports, reports), (reports, tells), (tells, tells), (reports, budgets), (tells, finishes), (budgets, claims),
]  # fmt: skip
several = st.one_of(st.lists(thing, min_size=2, max_size=3), *[st.tuples(*pair) for pair in pairs])
