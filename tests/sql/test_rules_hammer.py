"""All rules at once: eight daemons and thirty-two clients, keys, wakes, cancels, pauses, schedules, limits. `make hammer` for longer."""

import asyncio
import os

import pytest
from sql.crowds import drained
from sql.hammer import LOST, PROMOTED, TWICE, WORLD, Crowd
from sql.people import Worker

SECONDS = float(os.environ.get("LEASEHOLD_HAMMER_SECONDS", "6"))
WORKER = "select * from leasehold.register_worker($1, $2, 'boot', 'keeper', '0.1', 6, null, '10 minutes')"


@pytest.mark.race
@pytest.mark.timeout(SECONDS * 4 + 120)
@pytest.mark.rule("P45", "PW14", "PW23", "PW24", "X11", "X16", "X28")
async def test_no_limit_is_exceeded_no_wake_lost_nothing_promoted_twice_whatever_comes_together(sql, connect, sane):
    await sql.execute(WORLD)
    crowd = Crowd(4)
    daemons = []
    for number in range(8):
        claims = await connect()
        worker = Worker(claims, await claims.fetchrow(WORKER, f"w{number}", f"h{number % 3}"))
        daemons.append(asyncio.create_task(crowd.daemon(worker, await connect())))
    clients = [asyncio.create_task(crowd.client(await connect())) for _ in range(29)]
    clients += [asyncio.create_task(crowd.pauser(await connect())) for _ in range(1)]
    clients += [asyncio.create_task(crowd.planner(await connect())) for _ in range(2)]
    await watch(SECONDS, daemons + clients)
    crowd.over.set()
    await asyncio.gather(*clients)
    await sql.execute("update leasehold.schedules set enabled = false")
    await drained(sql, daemons, patience=20)
    crowd.draining = False
    await asyncio.gather(*daemons)
    counted = await sql.fetchrow("""
        select (select count(*) from leasehold.jobs) jobs, (select count(*) from leasehold.runs) runs,
               (select count(*) from leasehold.wakeups) wakes, (select count(*) from hammer.promoted) promoted,
               (select count(*) from leasehold.wakeups where disposition = 'coalesced') coalesced,
               (select count(*) from leasehold.wakeups where source = 'schedule') ticks""")
    print(f"hammer: {dict(counted)}, {crowd.deadlocks} deadlocks repeated")
    for query in ("select what from hammer.faults", LOST, TWICE, PROMOTED):
        assert await sql.fetch(query + " limit 5") == []
    assert counted["coalesced"] and counted["promoted"] and counted["ticks"]
    await sane()


async def watch(seconds, tasks):
    """Let them work; whoever fails ends it."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
