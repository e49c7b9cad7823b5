"""The protocol's world in one immutable value: what the database, host A and host B know, and how far time has got.

Modelled: one job; host A complete (lives of its daemon, calls in flight, bytes in the keeper's socket, keeper, trees, exit
records); host B healthy, each step of it whole. Time is ticks, and all clocks count down to 0. A tick may fall between any two
steps, so that slow, stopped and cut-off actors of any duration are in; only what is killed or lost is a fault and counted.

Not modelled: two faulty hosts, more than one job, output, turns, retries with backoff, what two SQL statements do to each other
(each call is whole), clocks of different rates, paused virtual machines, trees that cannot be killed, bytes of `extend` in the
socket (deadlines are absolute and only grow, so a late one changes nothing).
"""

from typing import NamedTuple

B = -1
"""Host B as the owner of a run; A's lives count from 0."""
OVER = ("done", "cancelled")
"""Where a job may stay."""


class Bounds(NamedTuple):
    """How much world there is, which faults may befall it, and which rules are switched off."""

    lives: int = 2
    runs: int = 2
    lease: int = 2
    margin: int = 1
    faults: int = 1
    kinds: frozenset = frozenset()
    without: frozenset = frozenset()

    def has(self, rule):
        return rule not in self.without

    @property
    def proof(self):
        """What a clock reading just taken will prove."""
        return self.lease - self.margin


class Run(NamedTuple):
    """A row of `runs`. `forgotten`: a failover has undone it; `number` is its id, which then may be given again."""

    number: int
    owner: int
    outcome: str = ""
    late: bool = False
    forgotten: bool = False

    @property
    def live(self):
        return not self.outcome and not self.forgotten


class Worker(NamedTuple):
    """A row of `workers`, a life of A. `still`: ticks until a reaper has seen its counter stand still for a lease."""

    state: str
    lease: int
    still: int


class Call(NamedTuple):
    """A call between daemon and database: sent, then committed (it has an answer), then heard."""

    kind: str
    life: int
    runs: tuple = ()
    proof: int = 0
    quiet: bool = True
    answer: tuple | None = None


class Held(NamedTuple):
    """A run in the daemon's roster. `asked`: its spawn has been sent. `stop`: its end is to be asked for."""

    run: int
    deadline: int
    asked: bool = False
    stop: bool = False


class Daemon(NamedTuple):
    """The process on A. It is `up` once it has adopted."""

    life: int
    up: bool = False
    proved: int = 0
    held: tuple = ()
    claim: Call | None = None
    lease: Call | None = None


class Spawn(NamedTuple):
    """Bytes in the keeper's socket, written under the epoch of a life."""

    run: int
    deadline: int
    epoch: int


class Tree(NamedTuple):
    """Processes of a run on A. `said`: the agent has given its result, and lingers. `known`: to the keeper that is up."""

    run: int
    deadline: int
    said: bool = False
    known: bool = True


class State(NamedTuple):
    """Everything."""

    job: str = "queued"
    cancel: bool = False
    runs: tuple = ()
    workers: tuple = ()
    closed: int = 0  # ticks for which claim and reap stay closed after a failover
    daemon: Daemon | None = None
    ghosts: tuple = ()  # calls of daemons that are dead; they may still commit
    rebels: tuple = ()  # spawns of a superseded daemon that does not leave
    keeper: bool = True
    wire: tuple = ()
    trees: tuple = ()
    records: tuple = ()  # (run, outcome) on A's disk
    elsewhere: int | None = None  # the run whose tree lives on B
    faults: int = 0  # that have happened

    def tree(self, run):
        return next((tree for tree in self.trees if tree.run == run), None)

    def record(self, run):
        return next((record for record in self.records if record[0] == run), None)

    def without_tree(self, run, outcome):
        """The tree is gone, and the keeper has written so."""
        trees = tuple(tree for tree in self.trees if tree.run != run)
        return self._replace(trees=trees, records=tuple(sorted({*self.records, (run, outcome)})))


def replaced(rows, index, **columns):
    """A table with one row changed."""
    return (*rows[:index], rows[index]._replace(**columns), *rows[index + 1 :])
