"""Which rule is missed where: for each of the 20 rules the smallest world in which switching it off breaks a promise."""

from typing import NamedTuple

from model.state import Bounds

KILL = "the daemon is killed"
ANSWER = "an answer is lost"
SECOND = "a second daemon supersedes the first"
KEEPER = "the keeper is killed"
CLOCK = "the database's clock steps"
FAILOVER = "failover"
CANCEL, CLONE = "cancel", "clone"  # not faults: what a user and an operator may do
EVERYTHING = frozenset({KILL, ANSWER, SECOND, KEEPER, CLOCK, FAILOVER, CANCEL, CLONE})


def world(*kinds, **bounds):
    return Bounds(kinds=frozenset(kinds), **{"lives": 1, "runs": 1, **bounds})


class Rule(NamedTuple):
    """What it says, and where it is missed."""

    says: str
    missed: Bounds


RULES = {
    1: Rule("a spawn carries the deadline proved before the claim was sent", world()),
    2: Rule("only a renewal that named the run moves its deadline", world(FAILOVER, runs=2)),
    3: Rule("the keeper refuses a deadline that has passed", world()),
    4: Rule("the clock is read before the statement is sent", world()),
    5: Rule("hello drops what older epochs have written", world(KILL, lives=2)),
    6: Rule("a superseded daemon leaves", world(SECOND, lives=2)),
    7: Rule("deadlines move only after the adoption has committed", world(KILL, lives=2, lease=3)),
    8: Rule("an adoption closes older lives, and a closed life adopts nothing", world(KILL, lives=2)),
    9: Rule("an adoption needs the same keeper", world(CLONE)),
    10: Rule("a renewal answers with runs that were not named", world(ANSWER)),
    11: Rule("unnamed runs are taken up only if no claim was in flight", world()),
    12: Rule("closed and expired workers are refused, and runs of closed ones are reaped", world()),
    13: Rule("a run is finished when its tree is gone", world()),
    14: Rule("a new keeper sweeps its predecessor's trees", world(KEEPER)),
    15: Rule("without a keeper the daemon kills in time", world(KEEPER)),
    16: Rule("a reaped run whose cancel was asked for ends its job", world(CANCEL, runs=2)),
    17: Rule("a reaper has seen the counter stand still for a lease on its own clock", world(CLOCK)),
    18: Rule("after a failover claim and reap are closed for a lease", world(FAILOVER, runs=2)),
    19: Rule("a token, not an id alone, tells runs apart", world(FAILOVER, runs=2)),
    20: Rule("a late outcome is taken once", world(KILL, lives=2)),
}

SMALL = {
    "nothing goes wrong, two lives": world(lives=2),
    "any one fault, one life": world(*EVERYTHING),
    "a failover or a cancel, two runs": world(FAILOVER, CANCEL, runs=2),
    "the daemon dies or is superseded, two lives": world(KILL, SECOND, lives=2),
}
LARGE = {
    "a longer lease, two lives": world(KILL, lives=2, lease=3),
    "any one fault, two runs": world(*EVERYTHING, runs=2),
    "any two faults, one life": world(*EVERYTHING - {KEEPER}, faults=2),
    "any one fault, two lives": world(*EVERYTHING, lives=2),
    "the daemon dies, two lives, two runs": world(KILL, lives=2, runs=2),
}
