"""Firing schedules: once, on their grid, with missed ticks and jitter, whoever looks and however late."""

import asyncio
from datetime import timedelta

import pytest
from sql.people import NOON
from sql.timetable import FOR_EVER, HOUR, fire, insert, look, read, turn


@pytest.fixture
def schedule(sql, fixer):
    return lambda name="tick", connection=None, **columns: insert(connection or sql, name, **columns)


@pytest.fixture
def row(sql):
    return lambda schedule: read(sql, schedule)


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=FOR_EVER)


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


@pytest.mark.rule("PW32")
async def test_how_long_a_job_takes_moves_no_tick(schedule, worker, clock, row):
    made = await schedule(every=HOUR)
    await clock.forward(hours=1)
    await turn(worker)
    run = await worker.claim_one()
    await clock.forward(minutes=50)
    await worker.finish(run)
    assert (await row(made))["next_at"] == NOON + 2 * HOUR


@pytest.mark.parametrize(
    ("missed", "most", "fired", "told"),
    [
        ("skip", 10, [], True),
        ("once", 10, [5], True),
        ("all", 10, [1, 2, 3, 4, 5], False),
        ("all", 2, [4, 5], True),
    ],
)
async def test_what_becomes_of_ticks_that_nobody_could_fire(
    schedule, worker, clock, row, sql, missed, most, fired, told
):
    made = await schedule(every=HOUR, missed=missed, missed_most=most, conflict_policy="defer")
    await clock.forward(hours=5, minutes=10)
    said = await turn(worker)
    assert [tick for what, tick in said if what == "fired"] == [NOON + n * HOUR for n in fired]
    assert [tick for what, tick in said if what == "missed"] == ([NOON + HOUR] if told else [])
    assert (await row(made))["next_at"] == NOON + 6 * HOUR
    assert await sql.fetchval("select count(*) from leasehold.jobs") == len(fired)
    await clock.set(NOON + 6 * HOUR + timedelta(seconds=50))
    assert await turn(worker) == [("fired", NOON + 6 * HOUR)], "less than a minute late is on time"


async def test_jitter_delays_a_tick_by_the_same_always_and_moves_no_grid(schedule, worker, clock, row, sql):
    made = await schedule(every=HOUR, jitter=timedelta(minutes=30))
    delays = set()
    for tick in range(1, 6):
        now = await row(made)
        assert now["next_at"] == NOON + tick * HOUR
        again = await sql.fetchval("select leasehold.tick_delay($1, $2, '30 minutes')", made["id"], now["next_at"])
        delays.add(again)
        assert now["due_at"] - now["next_at"] == again < timedelta(minutes=30)
        await clock.set(now["due_at"] - timedelta(milliseconds=1))
        assert await turn(worker) == []
        await clock.set(now["due_at"])
        assert await turn(worker) == [("fired", NOON + tick * HOUR)]
    assert len(delays) == 5
    others = await sql.fetch(
        "select leasehold.tick_delay(n, $1, '30 minutes') as d from generate_series(1, 1000) n", NOON
    )
    assert 400 < sum(other["d"] < timedelta(minutes=15) for other in others) < 600, "spread, not in step"


async def test_who_has_read_a_schedule_before_it_was_edited_cannot_fire_it(schedule, worker, clock, sql):
    await schedule(cron="0 3 * * *")
    [before] = await look(worker)
    await sql.execute("update leasehold.schedules set cron = '0 4 * * *'")
    assert await fire(worker, before, [NOON + 15 * HOUR]) == [("taken", None)]
    [after] = await look(worker)
    assert await fire(worker, after, [NOON + 16 * HOUR]) == [("planned", NOON + 16 * HOUR)]


async def test_cron_is_planned_then_fired_with_the_ticks_of_a_calendar(schedule, worker, clock, row, sql):
    made = await schedule(cron=" 0  3 * * mon-fri ", timezone="Europe/Berlin", missed="all")
    assert (made["cron"], made["next_at"]) == ("0 3 * * MON-FRI", None)
    [due] = await look(worker)
    await fire(worker, due, [NOON + HOUR])
    await clock.forward(hours=4)
    [due] = await look(worker)
    assert (due["next_at"], due["due_in"]) == (NOON + HOUR, timedelta(0))
    said = await fire(worker, due, [NOON + HOUR, NOON + 2 * HOUR, NOON + 5 * HOUR])
    assert said == [("fired", NOON + HOUR), ("fired", NOON + 2 * HOUR)]
    assert await fire(worker, due, [NOON + HOUR, NOON + 5 * HOUR]) == [("taken", None)], "by our own first call"
    assert (await row(made))["last_at"] == NOON + 2 * HOUR


async def test_what_the_calendar_cannot_read_is_looked_at_again_after_an_hour_or_an_edit(
    schedule, worker, clock, row, sql
):
    made = await schedule(cron="0 0 31 2 *")
    [due] = await look(worker)
    fail = "select leasehold.fail_schedule($1, $2, $3, $4, $5, 'it never comes')"
    assert await sql.fetchval(fail, *worker.me, due["schedule"], due["version"], due["next_at"])
    assert (await row(made))["error"] == "it never comes"
    assert [due["due_in"] for due in await look(worker)] == [HOUR]
    await sql.execute("update leasehold.schedules set cron = '0 0 28 2 *'")
    assert (await row(made))["error"] is None and [due["due_in"] for due in await look(worker)] == [timedelta(0)]
    assert not await sql.fetchval(fail, *worker.me, due["schedule"], due["version"], due["next_at"])


async def test_an_edit_that_is_under_way_holds_up_no_daemon(schedule, worker, clock, sql, connect):
    await schedule("edited", every=HOUR)
    await schedule("other", every=HOUR)
    await clock.forward(hours=1)
    other = await connect()
    async with other.transaction():
        await other.execute("select from leasehold.schedules where name = 'edited' for update")
        assert sorted(await asyncio.wait_for(turn(worker), 5), key=str) == [("fired", NOON + HOUR), ("taken", None)]


@pytest.mark.rule("X16", "PW34")
@pytest.mark.race
async def test_of_many_daemons_one_fires_a_tick(schedule, sql, hire, connect, sane):
    for number in range(20):
        await schedule(
            f"s{number}", every=timedelta(seconds=1), conflict_policy="defer", missed="all", missed_most=1000
        )
    workers = [await hire(await connect(), instance=f"w{number}") for number in range(8)]

    async def daemon(worker):
        for _ in range(25):
            await turn(worker)
            await asyncio.sleep(0.1)

    await asyncio.gather(*map(daemon, workers))
    ticks = await sql.fetch(
        """select s.id, s.starts_at, s.next_at, array_agg((j.context ->> 'tick')::timestamptz order by j.id) as ticks
             from leasehold.schedules s join leasehold.jobs j on j.schedule_id = s.id group by s.id"""
    )
    for one in ticks:
        count = round((one["next_at"] - one["starts_at"]).total_seconds()) - 1
        assert one["ticks"] == [one["starts_at"] + timedelta(seconds=n) for n in range(1, count + 1)], (
            "each once, none left out"
        )
    assert len(ticks) == 20
    await sane()


async def test_due_schedules_are_found_by_the_index_among_many(schedule, worker, clock, sql, fixer):
    await sql.execute("""insert into leasehold.schedules (name, agent, prompt, every)
        select 's' || n, 'fixer', 'x', make_interval(secs => 100 + n) from generate_series(1, 3000) n""")
    await clock.forward(seconds=103)
    due = await look(worker, 2)
    assert [one["name"] for one in due] == ["s1", "s2", "s4"], "the first two that are due, and the first that is not"
    await sql.execute("load 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_level = notice"):
        await sql.execute(f"set auto_explain.{setting}")
    told = []
    sql.add_log_listener(lambda _, message: told.append(message.message))
    await sql.execute("set client_min_messages = notice")
    await look(worker)
    plans = "\n".join(told)
    assert plans.count("schedules_due") >= 2 and "Seq Scan on schedules" not in plans and "Sort" not in plans
