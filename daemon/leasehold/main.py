"""The whole daemon on one page. Nesting is the shutdown order: what is inside ends first."""

from functools import partial

import structlog
from anyio import CancelScope, create_task_group

from leasehold import __version__, sdnotify
from leasehold.bell import Bell
from leasehold.db.away import CHORE, GONE
from leasehold.db.calls import open_database
from leasehold.db.listen import open_listener
from leasehold.db.schema import still_our_schema, until_schema
from leasehold.events.brake import open_brake
from leasehold.events.shipper import open_shipper
from leasehold.loops import background, every
from leasehold.metrics import open_metrics
from leasehold.processes.link import open_keeper
from leasehold.retention.removals import Remover
from leasehold.retention.sweep import Sweeper
from leasehold.runs.adopt import Lives, host_id
from leasehold.runs.claim import Claimer
from leasehold.runs.lease import Lease, LeaseKeeper
from leasehold.runs.lock import instance_lock
from leasehold.runs.pulse import Pulse
from leasehold.runs.reap import Reaper
from leasehold.runs.roster import Roster
from leasehold.runs.stop import Stopper
from leasehold.runs.supervise import Supervisor
from leasehold.runs.unanswered import Unanswered
from leasehold.runs.vitals import expose
from leasehold.schedules.ticker import CHANNEL, Ticker
from leasehold.settings import Settings

log = structlog.get_logger()

POOL = 3
"""Connections for claims, output and verdicts; the lease and LISTEN have one each beside them."""


async def serve(settings: Settings) -> None:
    """Claim and supervise runs until told to stop; leave them the way `stop_mode` says; then stop."""
    log.info("daemon_starting", version=__version__, instance=settings.instance, state_dir=str(settings.state_dir))
    name, dsn = f"leasehold {settings.instance}", settings.database_url
    wake, controls, lease, pulse = Bell(), Bell(), Lease(settings), Pulse("claim", "lease")
    roster = Roster(settings.max_runs, wake)

    await until_schema(dsn)
    async with (
        instance_lock(settings.state_dir, settings.instance),
        open_metrics(settings.metrics_address),
        open_database(dsn, name, POOL) as db,  # closes last
        open_database(
            dsn, f"{name} lease", 1, own_lock=f"leasehold {settings.instance}@{host_id()}", answer=settings.patience
        ) as lifeline,
        open_keeper(
            settings.state_dir,
            settings.socket,
            settings.instance,
            start_if_missing=not settings.under_systemd,
            on_back=wake.ring,
        ) as keeper,
        background() as services,  # outlive the runs, so that leases last as long as runs do
        open_listener(dsn, f"{name} listen") as listener,
        open_brake(keeper) as brake,
        open_shipper(db) as shipper,  # empties its queue when the last run has spoken
        create_task_group() as runs,  # ends when the last run has ended
    ):  # fmt: skip
        supervisor = Supervisor(settings, db, keeper, lease, roster, shipper, brake)
        lives = Lives(settings, lifeline, keeper, lease, roster, supervisor, runs, listener, controls)
        leases = LeaseKeeper(settings, lifeline, lease, roster, keeper, pulse)
        claimer = Claimer(settings, db, lease, roster, keeper, pulse, wake)
        reaper = Reaper(db, lease, settings.renewal)
        ticker = Ticker(settings.poll.total_seconds(), db, lease, Bell())
        sweeper, remover = Sweeper(db, lease), Remover(settings, db, lease, roster, keeper)
        listener.hear("leasehold", wake)
        listener.hear(CHANNEL, ticker.bell)
        expose(roster, lease, keeper, shipper, db, lifeline)

        await lifeline.patiently(lives.begin)  # it may be cut off in the midst of registering and adopting
        await listener.ready.wait()
        services.start_soon(leases.keep_forever, controls, lives.take_up, lives.begin_again)
        services.start_soon(leases.extend_forever)
        services.start_soon(every, settings.renewal.total_seconds(), reaper.reap, GONE)
        services.start_soon(every, settings.renewal.total_seconds(), reaper.expire, GONE)
        services.start_soon(Unanswered(db, lease, settings.renewal).expire_forever)
        services.start_soon(ticker.tick_forever)
        services.start_soon(every, settings.sweep.total_seconds(), sweeper.sweep, CHORE)
        services.start_soon(every, settings.sweep.total_seconds(), remover.remove, CHORE)
        services.start_soon(every, settings.sweep.total_seconds(), remover.find, CHORE)
        services.start_soon(every, settings.poll.total_seconds(), partial(still_our_schema, dsn), GONE)
        sdnotify.ready(f"{len(roster.held)} running, {roster.free} free")
        log.info("daemon_ready", worker=lease.worker.id, running=len(roster.held), free=roster.free, keeper=keeper.rung)

        stopper = Stopper(settings, roster, lease, leases)
        with CancelScope() as claiming:
            services.start_soon(stopper.stop_on_signal, claiming)
            await claimer.claim_forever(lives.start)
        await stopper.leave()
        await stopper.deregister(lifeline)
        runs.cancel_scope.cancel()  # what is here still is left to the keeper and the next life
    log.info("daemon_stopped")
