"""What a step may be, drawn at random: the strategies. Frequent things stand in a list more than once."""

import hypothesis.strategies as st
from sql.machine.asks import Cancel, Enqueue, Failover, Insert, Limit, Pause, Retry
from sql.machine.goes import Deregister, Reap, Watch
from sql.machine.lates import ReadLate, ShipLate
from sql.machine.speaks import REASONS, WRONG, Checkpoint, Finish, Say, Ship, Start, Stop, Suspect, Trim, Unkillable
from sql.machine.works import Adopt, Claim, Expire, Read, Register, Renew

few, many = st.integers(0, 5), st.integers(0, 11)
agents, tenants, queues = (
    st.sampled_from(names) for names in (["free", "narrow", "hasty"], ["default", "limited"], ["default", "slow"])
)
keys = st.sampled_from([None, None, "k", "k", "l"])
some = st.none() | st.lists(few, max_size=3).map(tuple)
honest = st.sampled_from([True, True, True, False])


def voices(*what):
    return st.lists(st.tuples(few, honest, *what), min_size=1, max_size=3).map(tuple)


stream, place = st.sampled_from(["stdout", "stderr"]), st.integers(0, 6)
inserts = st.builds(
    Insert, agents, tenants, queues, keys, attempts=st.integers(1, 3), ahead=st.sampled_from([0, 0, 30, -30]),
    many=st.integers(1, 3), priority=st.sampled_from([0, 0, 7]),
)  # fmt: skip
enqueues = st.builds(Enqueue, agents, st.sampled_from("ij"), st.sampled_from("xxy"), keys)
cancels, retries = st.builds(Cancel, many), st.builds(Retry, many)
pauses = st.builds(Pause, agents, st.sampled_from([False, False, True]))
most = st.sampled_from([None, None, 0, 1, 3])
limits = st.one_of(
    st.builds(Limit, st.just("agents"), agents, most),
    st.builds(Limit, st.just("tenants"), tenants, most, st.sampled_from([False, False, True])),
    st.builds(Limit, st.just("queues"), queues, most, st.sampled_from([False, False, True])),
)
registers = st.builds(
    Register, st.sampled_from(["alpha", "beta"]), st.sampled_from(["keeper-1"] * 4 + ["keeper-2"]),
    st.sampled_from(["boot-1"] * 4 + ["boot-2"]), st.sampled_from([None, None, ("slow",)]),
)  # fmt: skip
claims = st.builds(Claim, few, slots=st.integers(1, 4))
renews = st.builds(Renew, few, some)
adopts = st.builds(Adopt, few, some, st.sampled_from([False, False, True]))
watches, reaps = st.builds(Watch, few), st.builds(Reap, few, st.sampled_from(["all", "fair", "stale"]))
reads = st.builds(Read, few, some)
leaves, expires = st.builds(Deregister, few), st.builds(Expire, few)
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
near, chunk = st.integers(0, 3), st.sampled_from([b"a", b"bc", b"def"])
pours = st.one_of(
    checkpoints,
    st.builds(lambda honest, mark: Say(((0, honest, mark),)), honest, near),
    st.builds(lambda honest, at, chunk: Ship(((0, honest, "stdout", at, chunk),)), honest, near, chunk),
    st.builds(lambda honest, start, more: Trim(((0, honest, "stdout", start, start + more),)), honest, near, near),
)
lates = st.one_of(st.builds(ReadLate, voices()), st.builds(ShipLate, few, by, place, forged=forged))
asks = st.one_of(inserts, inserts, enqueues, cancels, retries)
governs = st.one_of(pauses, limits, limits, limits, st.just(Failover()))
leases = st.one_of(renews, reads, adopts, adopts, reaps, reaps, watches, leaves, expires, registers)
speaks = st.one_of(starts, starts, stops, suspects, unkillables, says, ships, trims, checkpoints, lates)
thing = st.one_of(asks, governs, claims, claims, leases, speaks, finishes, finishes)
pairs = [
    (claims, claims), (claims, claims), (claims, claims), (inserts, claims), (finishes, reaps), (reaps, reaps), (adopts, renews), (adopts, finishes), (cancels, finishes),
    (cancels, claims), (retries, retries), (enqueues, enqueues), (says, finishes), (ships, reaps),
    (expires, claims), (expires, cancels), (lates, finishes), (stops, finishes), (unkillables, reaps), (inserts, finishes),
]  # fmt: skip
several = st.one_of(st.lists(thing, min_size=2, max_size=3), *[st.tuples(*pair) for pair in pairs])
