"""What Prometheus may read over HTTP: numbers about this daemon, never about one job. If it fails, a graph has a gap.

The numbers are served by a thread, so they are told also while the daemon's loop is busy: one request at a time, none
longer than a few seconds for each read.
"""

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socketserver import TCPServer
from threading import Thread
from typing import Any

import structlog
from anyio import CancelScope, to_thread
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    MetricsHandler,
    ProcessCollector,
    disable_created_metrics,
)

from leasehold import __version__
from leasehold.errors import BadSettings

log = structlog.get_logger()

SLOW_READER = 5.0
"""Seconds to wait for a client to go on with its request."""
GOODBYE = 2.0
"""Seconds for the last request to end when the daemon leaves."""

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
Info("leasehold_daemon", "The release that runs here.", registry=REGISTRY).info({"version": __version__})

RUNS = Gauge(
    "leasehold_runs",
    "Runs that have a place here, by state; settling: its processes are gone, its outcome is on the way.",
    ["state"],
    registry=REGISTRY,
)
PLACES_FREE = Gauge("leasehold_places_free", "How many more runs fit.", registry=REGISTRY)
UNKILLABLE_RUNS = Gauge(
    "leasehold_unkillable_runs", "Runs whose processes survive SIGKILL: their places stay taken.", registry=REGISTRY
)
RUN_OUTCOMES = Counter(
    "leasehold_run_outcomes", "Outcomes that were settled here.", ["outcome", "reason"], registry=REGISTRY
)
CLAIMS = Counter("leasehold_claims", "Looks for work that the database answered.", registry=REGISTRY)
CLAIMED_RUNS = Counter("leasehold_claimed_runs", "Runs that they opened.", registry=REGISTRY)
LEASE_SECONDS_LEFT = Gauge(
    "leasehold_lease_seconds_left", "For how long the lease is proved, less the margin; agents die at 0.",
    registry=REGISTRY,
)  # fmt: skip
RENEWAL_SECONDS = Histogram(
    "leasehold_renewal_seconds", "How long the database took over renewals, the failed ones too.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20), registry=REGISTRY,
)  # fmt: skip
OUTPUT_BYTES = Counter("leasehold_output_bytes", "Output of agents that the database has taken.", registry=REGISTRY)
OUTPUT_BACKLOG_BYTES = Gauge(
    "leasehold_output_backlog_bytes", "Output and events read and not stored yet, about.", registry=REGISTRY
)
KEEPER_CONNECTED = Gauge("leasehold_keeper_connected", "1 while the keeper answers.", registry=REGISTRY)
DATABASE_CONNECTED = Gauge(
    "leasehold_database_connected", "1 while the database answered last; asked once a renewal.", registry=REGISTRY
)


class _Handler(MetricsHandler):
    registry = REGISTRY
    timeout = SLOW_READER


class _Server(TCPServer):
    allow_reuse_address = True

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class says what it is
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # who asked went away: nothing to say
            log.warning("metrics_failed", error=repr(error))


@asynccontextmanager
async def open_metrics(address: str | None) -> AsyncIterator[None]:
    """Serve the numbers at `address` (`host:port`); None: nobody may ask. Raises BadSettings."""
    if address is None:
        yield
        return
    with _listen(address) as server:
        thread = Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        log.info("metrics_ready", host=server.server_address[0], port=server.server_address[1])
        try:
            yield
        finally:
            Thread(target=server.shutdown, name="metrics end", daemon=True).start()  # it waits for the last request
            with CancelScope(shield=True):
                await to_thread.run_sync(thread.join, GOODBYE)


def _listen(address: str) -> _Server:
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        return _Server(family, where)
    except OSError as error:
        raise BadSettings(
            f"metrics_address: cannot listen on {address}: {error.strerror or error}",
            hint="Does another daemon use it? Set LEASEHOLD_METRICS_ADDRESS to a free host:port, or leave it empty.",
        ) from error
