"""Schedules with real daemons: cron and intervals fire, two daemons fire once, what nobody can read stops nobody."""

import asyncio
from datetime import timedelta

import pytest
from support.clock import step_clock

SECOND = timedelta(seconds=1)
pytestmark = pytest.mark.race


@pytest.fixture
def schedule(sql):
    async def one(name, **columns):
        columns = {"name": name, "agent": "any", "prompt": "do it"} | columns
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        return await sql.fetchval(
            f"insert into leasehold.schedules ({', '.join(columns)}) values ({places}) returning id", *columns.values()
        )

    return one


COUNT = "select count(*) from leasehold.jobs where schedule_id = $1 and status = 'succeeded'"


async def test_cron_comes_at_its_minute_and_a_schedule_that_nobody_can_read_stops_no_other(
    host, sql, agent, schedule, eventually
):
    await agent("any", "true")
    never = await schedule("never", cron="0 0 31 2 *")
    async with host.daemon():
        made = await schedule("minutely", cron="* * * * *", timezone="Asia/Kathmandu")
        elsewhere = await schedule("elsewhere", cron="0 3 * * *", timezone="Atlantis/Capital+3")
        await eventually(sql, "select next_at is not null from leasehold.schedules where id = $1", made, expected=True)
        ahead = "select extract(epoch from next_at - leasehold.clock())::float8 from leasehold.schedules where id = $1"
        await step_clock(sql, await sql.fetchval(ahead, made) - 0.5)
        await sql.execute("notify leasehold_schedules")
        await eventually(sql, COUNT, made, expected=1)
        await eventually(sql, "select count(*) from leasehold.schedules where error is not null", expected=2)
        await host.said("schedule_fired", schedule=made, disposition="accepted")
        for bad in (never, elsewhere):
            await host.said("schedule_failed", schedule=bad)
        await sql.execute("update leasehold.schedules set cron = '0 0 28 2 *' where id = $1", never)
        await eventually(
            sql,
            "select next_at is not null and error is null from leasehold.schedules where id = $1",
            never,
            expected=True,
        )
    tick = await sql.fetchval("select (context ->> 'tick')::timestamptz from leasehold.jobs")
    assert tick.second == 0 and tick == await sql.fetchval(
        "select last_at from leasehold.schedules where id = $1", made
    )


@pytest.mark.rule("X16", "PW34")
async def test_two_daemons_fire_each_tick_once_also_when_one_is_killed(host_at, sql, agent, schedule, eventually):
    await agent("any", "true")
    one, two = host_at("one"), host_at("two")
    made = [await schedule(f"s{n}", every=SECOND, conflict_policy="defer", missed="all") for n in range(5)]
    total = "select count(*) from leasehold.jobs where schedule_id is not null"
    async with one.daemon() as first, two.daemon():
        while await sql.fetchval(total) < 15:
            await asyncio.sleep(0.05)
        first.kill()
        so_far = await sql.fetchval(total)
        while await sql.fetchval(total) < so_far + 15:
            await asyncio.sleep(0.05)
        await sql.execute("update leasehold.schedules set enabled = false")
    for id_ in made:
        ticks = await sql.fetch(
            "select (context ->> 'tick')::timestamptz as at from leasehold.jobs where schedule_id = $1 order by id", id_
        )
        ticks = [row["at"] for row in ticks]
        assert len(ticks) >= 5 and ticks == [ticks[0] + n * SECOND for n in range(len(ticks))], (
            "each once, none left out"
        )
    fired = [line["schedule"] for host in (one, two) for line in host.lines() if line["event"] == "schedule_fired"]
    assert abs(len(fired) - await sql.fetchval(total)) <= 1, "a daemon that is killed may not have said its last tick"


async def test_a_notice_that_is_lost_is_made_good_by_the_poll(host, sql, agent, schedule, eventually):
    await agent("any", "true")
    await schedule("far", every=timedelta(days=1))
    await sql.execute("drop trigger ring on leasehold.schedules")
    async with host.daemon(poll="1s"):
        made = await schedule("new", cron="0 3 * * *")
        planned = "select next_at is not null from leasehold.schedules where id = $1"
        await eventually(sql, planned, made, expected=True)


async def test_a_daemon_with_schedules_far_ahead_hardly_asks(host, sql, agent, schedule, eventually):
    await agent("any", "true")
    name = await sql.fetchval("select current_database()")
    await sql.execute(f"alter database {name} set track_functions = 'all'")
    for number in range(20):
        await schedule(f"s{number}", cron="0 0 1 1 *")
    async with host.daemon():
        await eventually(sql, "select count(*) from leasehold.schedules where next_at is null", expected=0)
        await asyncio.sleep(4)
    await sql.execute("select pg_stat_clear_snapshot()")
    calls = "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = $1"
    await eventually(sql, calls, "fire_schedule", expected=20)
    assert await sql.fetchval(calls, "due_schedules") <= 5
