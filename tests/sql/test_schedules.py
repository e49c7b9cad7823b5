"""Schedules in SQL: what may be written, the grid, missed ticks, jitter, errors, and that a tick is fired once."""

import asyncio
from datetime import timedelta

import pytest
from sql.people import NOON

HOUR = timedelta(hours=1)


@pytest.fixture
def schedule(sql, fixer):
    """Write a schedule as anybody would, and get its row."""

    async def one(name="tick", connection=None, **columns):
        columns = {"name": name, "agent": fixer, "prompt": "do it"} | columns
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        return await (connection or sql).fetchrow(
            f"insert into leasehold.schedules ({', '.join(columns)}) values ({places}) returning *", *columns.values()
        )

    return one


@pytest.fixture
def row(sql):
    async def one(schedule):
        return await sql.fetchrow("select * from leasehold.schedules where id = $1", schedule["id"])

    return one


@pytest.fixture
async def worker(fixer, clock, hire):
    """A worker whose lease outlasts the leaps of these tests."""
    return await hire(lease=timedelta(days=1000))


async def look(worker, most=100):
    return await worker.sql.fetch("select * from leasehold.due_schedules($1, $2, $3)", *worker.me, most)


async def fire(worker, due, ticks=None, sql=None):
    rows = await (sql or worker.sql).fetch(
        "select * from leasehold.fire_schedule($1, $2, $3, $4, $5, $6)",
        *worker.me,
        due["schedule"],
        due["version"],
        due["next_at"],
        ticks,
    )
    return [(said["what"], said["tick"]) for said in rows]


async def turn(worker):
    """What a daemon does with intervals: look, fire what is due."""
    return [said for due in await look(worker) if not due["due_in"] for said in await fire(worker, due)]


@pytest.mark.rule("P20", "P81", "PW32")
async def test_an_interval_ticks_on_its_own_grid_whoever_comes_late(schedule, worker, clock, row, sql):
    made = await schedule(every=HOUR)
    assert made["next_at"] == NOON + HOUR, "not at once: what is made together does not fire together"
    assert await turn(worker) == []
    await clock.forward(hours=1, minutes=7)
    assert await turn(worker) == [("fired", NOON + HOUR)]
    assert (await row(made))["next_at"] == NOON + 2 * HOUR
    job = await sql.fetchrow("select * from leasehold.jobs")
    assert (job["agent"], job["schedule_id"], job["concurrency_key"]) == ("fixer", made["id"], f"schedule:{made['id']}")
    assert await turn(worker) == [], "once"


@pytest.mark.rule("X16", "PW34")
@pytest.mark.race
async def test_of_many_daemons_one_fires_a_tick(schedule, sql, hire, connect):
    for number in range(5):
        await schedule(f"s{number}", every=HOUR)
    await sql.execute("update leasehold.schedules set next_at = leasehold.clock(), due_at = leasehold.clock()")
    workers = [await hire(await connect(), instance=f"w{number}") for number in range(8)]
    said = [what for turns in await asyncio.gather(*map(turn, workers)) for what, _ in turns]
    assert said.count("fired") == 5 == await sql.fetchval("select count(*) from leasehold.jobs")
