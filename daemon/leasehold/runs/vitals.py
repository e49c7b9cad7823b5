"""What the gauges say when somebody asks: read from the daemon's own state, by another thread. If it fails, see metrics."""

from collections import Counter
from functools import partial

from leasehold import metrics
from leasehold.db.calls import Database
from leasehold.events.shipper import Shipper
from leasehold.models import boottime
from leasehold.processes.keeper import Keeper
from leasehold.runs.lease import Lease
from leasehold.runs.roster import STATES, Roster


def expose(roster: Roster, lease: Lease, keeper: Keeper, shipper: Shipper, *databases: Database) -> None:
    """From now on the gauges tell of these."""

    def count(state: str) -> int:
        return Counter(held.state for held in roster.held.values())[state]

    for state in STATES:
        metrics.RUNS.labels(state).set_function(partial(count, state))
    metrics.PLACES_FREE.set_function(lambda: roster.free)
    metrics.UNKILLABLE_RUNS.set_function(lambda: count("unkillable"))
    metrics.LEASE_SECONDS_LEFT.set_function(lambda: max(0.0, lease.proved - boottime()))
    metrics.OUTPUT_BACKLOG_BYTES.set_function(lambda: shipper.backlog)
    metrics.KEEPER_CONNECTED.set_function(lambda: keeper.connected)
    metrics.DATABASE_CONNECTED.set_function(lambda: all(each.connected for each in databases))
