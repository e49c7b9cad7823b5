"""What a tick asks for: a wakeup under the rules of its agent and its key; what is refused is an error of that schedule only."""

import pytest
from sql.people import NOON
from sql.timetable import FOR_EVER, HOUR, insert, read, turn


@pytest.fixture
def schedule(sql, fixer):
    return lambda name="tick", connection=None, **columns: insert(connection or sql, name, **columns)


@pytest.fixture
def row(sql):
    return lambda schedule: read(sql, schedule)


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=FOR_EVER)


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
