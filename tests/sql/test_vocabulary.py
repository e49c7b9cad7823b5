"""Words that are closed lists stay closed, even to a superuser without triggers; and every change of status has its one event."""

import re

import pytest

CLOSED = [
    ("jobs", "status"), ("jobs", "conflict_policy"), ("runs", "status"), ("runs", "outcome"), ("workers", "state"),
    ("agents", "status"), ("agents", "adapter"), ("events", "level"), ("output", "stream"), ("holds", "scope"),
    ("wakeups", "source"), ("wakeups", "trigger"), ("wakeups", "actor_type"), ("wakeups", "disposition"),
    ("threads", "status"),
]  # fmt: skip


@pytest.fixture
async def allowed(sql):
    """The words that a table's own constraint allows in a column."""

    async def words(table, column):
        said = await sql.fetchval(
            """select string_agg(pg_get_constraintdef(c.oid), ' ')
                 from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and c.conkey = array[a.attnum]
                where c.conrelid = ('leasehold.' || $1)::regclass and c.contype = 'c' and a.attname = $2""",
            table, column,
        )  # fmt: skip
        return set(re.findall(r"'(\w+)'", said))

    return words


@pytest.mark.rule(
    "S18", "S20", "S24", "S32", "A8", "P2", "P4", "P5", "P6", "P7", "P11", "GW21", "O2", "O5", "OW9", "X2"
)
@pytest.mark.parametrize(("table", "column"), CLOSED)
async def test_an_unknown_word_is_stored_by_nobody(sql, worker, job, refused, allowed, table, column):
    await job(thread="t")
    run = await worker.claim_one()
    await worker.ship((run, "stdout", 0, b"x"))
    await sql.execute("select leasehold.wake('fixer'), leasehold.hold('queue', 'other', 'maintenance')")
    words = await allowed(table, column)
    assert words and all(re.fullmatch("[a-z_]+", word) for word in words)
    await sql.execute("set session_replication_role = replica")  # without our triggers
    for odd in ("nonsense", "Running", ""):
        async with refused("23514", hint=False):
            await sql.execute(f"update leasehold.{table} set {column} = $1", odd)


@pytest.mark.rule("S18", "A8", "O2", "O32", "X19")
async def test_the_table_of_transitions_knows_every_status_and_no_other(sql, allowed):
    named = {}
    for row in await sql.fetch("select * from leasehold.transitions"):
        named.setdefault(row["entity"], set()).update({row["from_status"], row["to_status"]} - {""})
    expected = {"job": ("jobs", "status"), "run": ("runs", "status"), "worker": ("workers", "state")}
    assert named == {entity: await allowed(*where) for entity, where in expected.items()}
    outcomes = {row[0] for row in await sql.fetch("select distinct outcome from leasehold.reasons")}
    assert outcomes == await allowed("runs", "outcome")


WATCH = """
    create table public.seen (job bigint, was text, now text, xid xid8 default pg_current_xact_id());
    create function public.see() returns trigger language plpgsql as $$
    begin insert into public.seen values (new.id, case tg_op when 'UPDATE' then old.status end, new.status); return null; end $$;
    create trigger see_new after insert on leasehold.jobs for each row execute function public.see();
    create trigger see_change after update on leasehold.jobs for each row
      when (old.status is distinct from new.status) execute function public.see()"""
LONELY = """
    select s.job, s.xid, array_agg(s.now) as now,
           array(select e.kind from leasehold.events e where (e.job_id, e.xid) = (s.job, s.xid) and e.kind <> 'late_outcome') as told
      from public.seen s group by s.job, s.xid
    having count(*) <> (select count(*) from leasehold.events e
                         where (e.job_id, e.xid) = (s.job, s.xid) and e.kind <> 'late_outcome')"""


@pytest.mark.rule("S62", "SW11", "A38", "G21", "OW8", "X19")
async def test_every_change_of_status_has_one_event_in_its_own_transaction(sql, worker, hire, job, clock, sane):
    await sql.execute(WATCH)
    await sql.execute(
        "update leasehold.agents set retry_backoff = '0', retry_backoff_max = '0', queue_timeout = '1 hour'"
    )
    for key in (None, None, "k", "k", "k"):
        await job(concurrency_key=key, max_attempts=3)
    lost, failed, first = await worker.claim()
    await worker.fail(failed)
    await worker.finish(first)
    await worker.finish(await worker.claim_one(), "interrupted", "stopped")
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta", lease=clock.now - clock.now.replace(year=2029))
    assert await reaper.reap()
    await worker.finish(lost)
    await sql.execute("select leasehold.cancel(3 + 1)")
    await sql.execute("select leasehold.retry(4)")
    await job()
    await clock.forward(hours=2)
    assert await reaper.expire()
    run = await reaper.claim_job(await job())
    await sql.execute("select leasehold.cancel($1)", run["job_id"])
    await reaper.finish(run, "cancelled", "cancelled")
    seen = {tuple(row) for row in await sql.fetch("select distinct was, now from public.seen")}
    assert {
        (None, "queued"), (None, "deferred"), ("queued", "running"), ("deferred", "queued"), ("running", "queued"),
        ("running", "succeeded"), ("queued", "succeeded"), ("queued", "timed_out"), ("running", "cancelled"),
    } <= seen  # fmt: skip
    assert {"cancelled"} <= {now for was, now in seen if was in ("queued", "deferred")}
    assert [dict(row) for row in await sql.fetch(LONELY)] == []
    await sane()
