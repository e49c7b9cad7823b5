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


@pytest.mark.rule("PW32")
async def test_how_long_a_job_takes_moves_no_tick(schedule, worker, clock, row):
    made = await schedule(every=HOUR)
    await clock.forward(hours=1)
    await turn(worker)
    run = await worker.claim_one()
    await clock.forward(minutes=50)
    await worker.finish(run)
    assert (await row(made))["next_at"] == NOON + 2 * HOUR


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


async def test_a_job_knows_its_tick_and_whether_it_stands_for_more_than_one(schedule, worker, clock, sql):
    await schedule(
        "nightly", every=HOUR, context='{"mine": 1}', payload='{"p": 2}', priority=7, queue="slow", thread="t"
    )
    await clock.forward(hours=2)
    await turn(worker)
    job = await sql.fetchrow("select * from leasehold.jobs")
    said = await sql.fetchval("select (context ->> 'tick')::timestamptz from leasehold.jobs")
    missed = await sql.fetchval("select (context ->> 'missed_since')::timestamptz from leasehold.jobs")
    assert (said, missed) == (NOON + 2 * HOUR, NOON + HOUR)
    assert (
        await sql.fetchval(
            "select (context ->> 'schedule') || (context ->> 'mine') || (payload ->> 'p') from leasehold.jobs"
        )
        == "nightly12"
    )
    assert (job["priority"], job["queue"], job["thread"]) == (7, "slow", "t")


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


@pytest.mark.rule("PW33")
async def test_a_tick_that_is_refused_is_an_error_of_its_schedule_and_the_others_go_on(
    schedule, worker, clock, row, sql
):
    await sql.execute("insert into leasehold.agents (name, command) values ('gone', '{true}')")
    bad = await schedule("bad", agent="gone", every=HOUR)
    good = await schedule("good", every=HOUR)
    await sql.execute("delete from leasehold.agents where name = 'gone'")
    await clock.forward(hours=1)
    assert sorted(await turn(worker)) == [("failed", NOON + HOUR), ("fired", NOON + HOUR)]
    assert (await row(bad))["error"] == 'there is no agent "gone" [LH024]' and (await row(good))["error"] is None
    await sql.execute("insert into leasehold.agents (name, command) values ('gone', '{true}')")
    await clock.forward(hours=1)
    await turn(worker)
    assert (await row(bad))["error"] is None and (await row(bad))["last_at"] == NOON + 2 * HOUR


@pytest.mark.rule("PW33")
@pytest.mark.parametrize("status", ["retired", "pending_approval"])
async def test_an_agent_that_is_not_to_be_asked_costs_its_schedule_a_tick_and_no_other(
    schedule, worker, clock, row, sql, status
):
    await sql.execute("insert into leasehold.agents (name, command) values ('gone', '{true}')")
    bad, good = await schedule("bad", agent="gone", every=HOUR), await schedule("good", every=HOUR)
    await sql.execute("update leasehold.agents set status = $1 where name = 'gone'", status)
    await clock.forward(hours=1)
    assert sorted(await turn(worker)) == [("failed", NOON + HOUR), ("fired", NOON + HOUR)]
    assert "[LH062]" in (await row(bad))["error"] and (await row(good))["error"] is None
    assert (await row(bad))["next_at"] == NOON + 2 * HOUR
    assert await sql.fetchval("select count(*) from leasehold.wakeups") == 1, "what is refused leaves nothing"


@pytest.mark.rule("P22")
async def test_an_agent_that_is_not_to_be_woken_by_schedules_is_left_alone_and_the_ask_is_a_row(
    schedule, worker, clock, row, sql
):
    made = await schedule("quiet", every=HOUR)
    await sql.execute("update leasehold.agents set wake_on_schedule = false")
    await clock.forward(hours=1)
    assert await turn(worker) == [("fired", NOON + HOUR)]
    ask = await sql.fetchrow("select * from leasehold.wakeups")
    assert (ask["disposition"], ask["why"], ask["job_id"]) == ("skipped", "wake_on_schedule is off", None)
    assert ask["decided_at"] is not None and (await row(made))["last_wakeup"] == ask["id"]
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 0 and (await row(made))["error"] is None
    await sql.execute("update leasehold.agents set wake_on_schedule = true, wake_on_demand = false")
    await clock.forward(hours=1)
    await turn(worker)
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 1


@pytest.mark.rule("PW32")
async def test_while_a_job_runs_its_schedule_makes_one_follow_up_however_many_ticks_come(
    schedule, worker, clock, sql, sane
):
    made = await schedule("busy", every=HOUR)
    await clock.forward(hours=1)
    await turn(worker)
    run = await worker.claim_one()
    for _ in range(4):
        await clock.forward(hours=1)
        await turn(worker)
    jobs = await sql.fetch("select status, coalesced, schedule_id from leasehold.jobs order by id")
    assert [tuple(job) for job in jobs] == [("running", 0, made["id"]), ("deferred", 3, made["id"])]
    asked = await sql.fetch("select disposition, (context ->> 'tick')::timestamptz from leasehold.wakeups order by id")
    assert [tuple(ask) for ask in asked] == [
        (what, NOON + n * HOUR)
        for n, what in enumerate(("accepted", "deferred", "coalesced", "coalesced", "coalesced"), 1)
    ]
    assert (
        await sql.fetchval("select (context ->> 'tick')::timestamptz from leasehold.jobs where status = 'deferred'")
        == NOON + 5 * HOUR
    )
    await worker.finish(run)
    await worker.finish(await worker.claim_one())
    assert await worker.claim() == []
    await sane()


@pytest.mark.parametrize(
    ("policy", "jobs", "said"),
    [("defer", 3, "deferred"), ("reject", 1, "rejected"), ("return_existing", 1, "existing"), ("allow", 3, "accepted")],
)
async def test_the_conflict_policy_of_a_schedule_decides_while_its_job_runs(
    schedule, worker, clock, row, sql, policy, jobs, said
):
    made = await schedule(every=HOUR, conflict_policy=policy)
    for _ in range(3):
        await clock.forward(hours=1)
        await turn(worker)
        await worker.claim()
    assert await sql.fetchval("select count(*) from leasehold.jobs") == jobs
    assert await sql.fetchval("select disposition from leasehold.wakeups order by id desc limit 1") == said
    assert (await row(made))["error"] is None


async def test_a_job_of_others_that_a_tick_joins_stays_theirs(schedule, worker, clock, sql):
    await sql.execute("select leasehold.wake('fixer', key => 'shared')")
    await schedule(every=HOUR, key="shared")
    await clock.forward(hours=1)
    await turn(worker)
    job = await sql.fetchrow("select * from leasehold.jobs")
    assert (job["coalesced"], job["schedule_id"]) == (1, None)


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


async def test_a_deadlock_or_a_full_disk_is_no_error_of_the_schedule_and_its_tick_is_not_lost(
    schedule, worker, clock, row, sql
):
    made = await schedule(every=HOUR)
    await sql.execute("""create function public.busy() returns trigger language plpgsql as $$
        begin raise exception 'deadlock' using errcode = '40P01'; end $$;
        create trigger busy before insert on leasehold.jobs for each row execute function public.busy()""")
    await clock.forward(hours=1)
    with pytest.raises(Exception, match="deadlock"):
        await turn(worker)
    await sql.execute("drop trigger busy on leasehold.jobs")
    assert (await row(made))["error"] is None and await turn(worker) == [("fired", NOON + HOUR)]


async def test_an_agent_that_is_paused_gets_its_job_and_the_job_waits(schedule, worker, clock, sql):
    await schedule(every=HOUR)
    await sql.execute("select leasehold.pause_agent('fixer')")
    await clock.forward(hours=1)
    assert await turn(worker) == [("fired", NOON + HOUR)] and await worker.claim() == []
    await sql.execute("select leasehold.resume_agent('fixer')")
    assert len(await worker.claim()) == 1


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
