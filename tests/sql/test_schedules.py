"""Writing schedules: what may be written, by whom, and where the grid lies."""

from datetime import timedelta

import pytest
from sql.people import NOON
from sql.timetable import FOR_EVER, HOUR, insert, look, read, turn


@pytest.fixture
def schedule(sql, fixer):
    return lambda name="tick", connection=None, **columns: insert(connection or sql, name, **columns)


@pytest.fixture
def row(sql):
    return lambda schedule: read(sql, schedule)


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=FOR_EVER)


async def test_starts_at_is_the_origin_of_the_grid_and_nothing_comes_before(schedule, worker, clock):
    past = await schedule("past", every=HOUR, starts_at=NOON - timedelta(days=3, minutes=20))
    ahead = await schedule("ahead", every=HOUR, starts_at=NOON + timedelta(days=1, minutes=5))
    assert past["next_at"] == NOON + timedelta(minutes=40)
    assert ahead["next_at"] == NOON + timedelta(days=1, minutes=5)


@pytest.mark.parametrize("every", ["1 second", "1.1 seconds", "7 minutes", "1 day", "3650 days"])
async def test_the_grid_of_an_interval_is_exact_over_many_years(sql, every):
    for years in (0, 1, 37, 200):
        after = await sql.fetchrow(
            """select g - o, extract(epoch from g - o) % extract(epoch from $1::text::interval) as off, g > m and g - $1::text::interval <= m as next
                 from (select o, m, leasehold.grid_after(o, $1::text::interval, m) as g
                         from (select timestamptz '2030-01-01 12:00:00.000007Z' as o,
                                      timestamptz '2030-01-01 12:00:00.000007Z' + make_interval(years => $2, secs => 17) as m) y) x""",
            every,
            years,
        )
        assert after["off"] == 0 and after["next"], (every, years)


async def test_an_edit_of_the_calendar_begins_again_and_one_of_the_prompt_does_not(schedule, worker, clock, row, sql):
    made = await schedule(every=HOUR)
    await clock.forward(minutes=90)
    await sql.execute("update leasehold.schedules set prompt = 'else', jitter = '1 minute'")
    assert (await row(made))["next_at"] == NOON + HOUR, "still to be fired"
    await sql.execute("update leasehold.schedules set every = '20 minutes'")
    assert (await row(made))["next_at"] == NOON + timedelta(minutes=100)
    await sql.execute("update leasehold.schedules set every = null, cron = '0 3 * * *'")
    assert (await row(made))["next_at"] is None and (await row(made))["due_at"] == clock.now


async def test_what_passes_while_a_schedule_is_off_is_not_missed(schedule, worker, clock, row, sql):
    made = await schedule(every=HOUR)
    await sql.execute("update leasehold.schedules set enabled = false")
    await clock.forward(hours=5, minutes=30)
    assert await look(worker) == []
    await sql.execute("update leasehold.schedules set enabled = true")
    assert (await row(made))["next_at"] == NOON + 6 * HOUR and await turn(worker) == []


async def test_tenants_write_and_see_only_their_own(schedule, login, fixer, refused, sql):
    acme, globex = await login("leasehold_producer", "acme"), await login("leasehold_producer", "globex")
    made = await schedule(connection=acme, every=HOUR)
    assert made["tenant"] == "acme"
    await schedule(connection=globex, every=HOUR)
    assert await acme.fetchval("select count(*) from leasehold.schedules") == 1
    assert await globex.execute("update leasehold.schedules set enabled = false where tenant = 'acme'") == "UPDATE 0"
    assert await globex.execute("delete from leasehold.schedules where tenant = 'acme'") == "DELETE 0"
    async with refused("LH030"):
        await schedule("theirs", globex, every=HOUR, tenant="acme")
    async with refused("LH030"):
        await globex.execute("update leasehold.schedules set tenant = 'acme'")
    async with refused("23505", hint=False):
        await schedule(connection=acme, every=HOUR)
    reader = await login("leasehold_reader", "acme")
    assert await reader.fetchval("select name from leasehold.schedules") == "tick"
    async with refused("42501", hint=False):
        await reader.execute("delete from leasehold.schedules")
    for column in ("next_at = now()", "due_at = now()", "version = 7", "error = ''", "last_job = 1"):
        async with refused("42501", hint=False):
            await acme.execute(f"update leasehold.schedules set {column}")


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({}, "LH075"),
        ({"cron": ""}, "LH076"),
        ({"cron": "@daily"}, "LH076"),
        ({"cron": "0 3 * * * *"}, "LH076"),
        ({"cron": "0 3 * * ; "}, "LH076"),
        ({"cron": "0 3 * * *", "timezone": "CEST"}, "LH077"),
        ({"cron": "0 3 * * *", "timezone": "FOO+3"}, "LH077"),
        ({"cron": "0 3 * * *", "timezone": "+02"}, "LH077"),
        ({"every": timedelta(seconds=-5)}, "LH078"),
        ({"every": timedelta(days=4000)}, "LH078"),
        ({"every": HOUR, "jitter": HOUR}, "LH078"),
        ({"every": HOUR, "jitter": timedelta(seconds=-1)}, "LH078"),
        ({"cron": "0 3 * * *", "jitter": timedelta(days=2)}, "LH078"),
        ({"every": HOUR, "missed": "never"}, "LH078"),
        ({"every": HOUR, "missed_most": 0}, "LH078"),
        ({"every": HOUR, "name": "  "}, "LH079"),
        ({"every": HOUR, "name": "x" * 201}, "LH079"),
        ({"every": HOUR, "prompt": " "}, "LH079"),
        ({"every": HOUR, "agent": None}, "LH079"),
        ({"every": HOUR, "payload": "3"}, "LH079"),
        ({"every": HOUR, "context": "[]"}, "LH079"),
        ({"every": HOUR, "priority": 1001}, "LH079"),
        ({"every": HOUR, "conflict_policy": "hope"}, "LH079"),
        ({"every": HOUR, "key": "k" * 501}, "LH079"),
        ({"every": HOUR, "agent": "nobody"}, "LH001"),
    ],
)
async def test_what_is_refused_before_it_is_a_schedule(schedule, refused, columns, code):
    async with refused(code):
        await schedule(**columns)


async def test_an_agent_that_is_retired_gets_no_new_schedules(schedule, fixer, sql, refused):
    await schedule(every=HOUR)
    await sql.execute("update leasehold.agents set status = 'retired'")
    async with refused("LH062"):
        await schedule("more", every=HOUR)
    await sql.execute("update leasehold.schedules set enabled = false")


async def test_months_are_refused_and_never_is_no_start(sql, fixer, refused):
    insert = (
        "insert into leasehold.schedules (name, agent, prompt, every, starts_at) values ('s', 'fixer', 'x', {}, {})"
    )
    for every, starts_at in (
        ("'1 month'", "now()"),
        ("'1 year'", "now()"),
        ("'1 day'", "'infinity'"),
        ("'1 day'", "'-infinity'"),
    ):
        async with refused("LH078"):
            await sql.execute(insert.format(every, starts_at))


async def test_a_writer_rings_the_daemons_and_a_tick_does_not(schedule, worker, clock, connect, sql):
    heard, ears = [], await connect()
    await ears.add_listener("leasehold_schedules", lambda *notice: heard.append(notice))
    await schedule(every=HOUR)
    await sql.execute("update leasehold.schedules set enabled = true")
    await ears.execute("select 1")
    assert len(heard) == 2
    await clock.forward(hours=1)
    await turn(worker)
    await ears.execute("select 1")
    assert len(heard) == 2
