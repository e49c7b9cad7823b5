"""Directories that have to go: the intent is a row, whoever dies in between leaves it, and one that fails is in nobody's way."""

from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

WANT = "insert into leasehold.removals (host_id, keeper_id, what, path) values ($1, $2, $3, $4) returning id"


@pytest.fixture
def want(sql):
    async def one(path, what="session", host="host-1", keeper="keeper-1"):
        return await sql.fetchval(WANT, host, keeper, what, path)

    return one


async def take(worker, at_most=20):
    rows = await worker.sql.fetch("select * from leasehold.take_removals($1, $2, $3)", *worker.me, at_most)
    return [row["removal"] for row in rows]


async def done(worker, removal, error=None):
    await worker.sql.execute("select leasehold.end_removal($1, $2, $3, $4)", *worker.me, removal, error)


async def find(worker, *keys):
    rows = await worker.sql.fetch(
        "select * from leasehold.find_orphans($1, $2, $3, $4)",
        *worker.me,
        [run for run, _ in keys],
        [key for _, key in keys],
    )
    return sorted(row[0] for row in rows)


@pytest.fixture
async def self_(worker, sql):
    """The worker, on the host and with the keeper of `want`."""
    await sql.execute("update leasehold.workers set host_id = 'host-1', keeper_id = 'keeper-1'")
    return worker


async def test_it_is_given_to_the_host_and_state_directory_it_is_meant_for_and_to_nobody_else(self_, want):
    mine = await want("sessions/one")
    await want("sessions/two", host="host-2")
    await want("sessions/three", keeper="keeper-2")
    assert await take(self_) == [mine]


@pytest.mark.rule("GW20", "X33")
async def test_whoever_took_it_and_died_leaves_it_to_the_next_life(self_, want, clock, sql):
    mine = await want("sessions/one")
    assert await take(self_) == [mine]
    await clock.forward(seconds=61)
    assert await take(self_) == [mine]
    await done(self_, mine)
    await clock.forward(seconds=115)
    assert await sql.fetchval("select done_at is not null and error is null from leasehold.removals")


@pytest.mark.rule("GW19")
async def test_one_that_keeps_failing_comes_later_and_later_and_blocks_nobody(self_, want, clock, sql):
    bad = await want("sessions/bad")
    waits = []
    for _ in range(14):
        assert await take(self_) == [bad]
        await done(self_, bad, "it is stuck")
        waits.append(
            await sql.fetchval("select next_at - leasehold.clock() from leasehold.removals where id = $1", bad)
        )
        await sql.execute("update leasehold.removals set next_at = leasehold.clock()")
    assert waits[:4] == [timedelta(minutes=2**n) for n in range(4)] and waits[-1] == timedelta(days=1)
    await take(self_)
    good = [await want(f"sessions/good-{n}") for n in range(30)]
    taken = [await take(self_), await take(self_)]
    assert [len(each) for each in taken] == [20, 10] and {*taken[0], *taken[1]} == {*good}
    row = await sql.fetchrow("select attempts, error, done_at from leasehold.removals where id = $1", bad)
    assert tuple(row) == (15, "it is stuck", None)


@pytest.mark.rule("GW19")
async def test_two_takers_take_different_ones(self_, want, connect, clock):
    ids = {await want(f"sessions/{n}") for n in range(4)}
    other = await connect()
    await other.execute(f"set leasehold.now = '{clock.now.isoformat()}'")
    async with self_.sql.transaction():
        first = await take(self_, 2)
        rows = await other.fetch("select removal from leasehold.take_removals($1, $2, 100)", *self_.me)
    assert {*first} | {row["removal"] for row in rows} == ids and len(rows) == 2


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("session", "/etc"), ("session", "sessions/../../etc"), ("session", "sessions"), ("session", "sessions/"),
        ("session", "sessions//one"), ("session", "sessions/.hidden"), ("session", "keeper.sock"), ("session", "runs/7"),
        ("run", "sessions/one"), ("run", "runs/7/workspace"), ("run", "runs/.."), ("run", "runs/07"), ("workspace", ""),
        ("session", "sessions/one\nruns/7"), ("session", "sessions/one\n"),
    ],
)  # fmt: skip
async def test_a_path_that_leads_elsewhere_cannot_be_written_down(want, what, path):
    with pytest.raises(asyncpg.CheckViolationError):
        await want(path, what)


async def lost_run(sql, worker, hire, clock):
    """A run of a host that is gone, given up as lost."""
    [run] = await worker.claim(1)
    await clock.forward(seconds=200)
    reaper = await hire(instance="reaper")
    await reaper.reap()
    return run, reaper


@pytest.mark.rule("SW28")
async def test_a_job_that_goes_takes_the_directory_of_its_lost_run_with_it(sql, worker, hire, clock, job):
    gone = await job(max_losses=1)
    run, _ = await lost_run(sql, worker, hire, clock)
    await sql.execute("select leasehold.delete_job($1)", gone)
    row = await sql.fetchrow(
        "select m.*, w.host_id as host from leasehold.removals m, leasehold.workers w where w.id = $1", worker.id
    )
    assert (row["host_id"], row["path"], row["token"]) == (row["host"], f"runs/{run['run_id']}", run["run_token"])


@pytest.mark.rule("GW20", "X33")
async def test_intent_and_deletion_are_one_transaction(sql, worker, hire, clock, job):
    gone = await job(max_losses=1)
    await lost_run(sql, worker, hire, clock)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("select leasehold.delete_job($1)", gone)
    await transaction.rollback()
    assert await sql.fetchval("select count(*) from leasehold.removals") == 0


@pytest.mark.rule("GW19")
async def test_orphans_are_settled_or_unknown_runs_never_live_ones_or_those_that_may_yet_tell_their_outcome(
    sql, worker, hire, clock, job, fixer
):
    await job(max_losses=1)
    lost, me = await lost_run(sql, worker, hire, clock)
    for _ in range(2):
        await job()
    live, settled = await me.claim(2)
    await me.finish(settled)
    keys = [(run["run_id"], run["run_token"]) for run in (lost, live, settled)]
    unknown = (4711, uuid4())
    assert await find(me, *keys, unknown, (live["run_id"], None)) == [settled["run_id"], 4711]
    assert await find(me, *keys, unknown) == []  # known already
    assert await take(me) == []  # after a rest
    await clock.forward(days=8)
    me.id, me.token = (await hire(instance="reaper")).me
    assert len(await take(me)) == 2


async def test_an_orphan_whose_run_is_open_after_all_is_left_alone(sql, worker, job, clock, hire):
    await job()
    run = await worker.claim_one()
    key = (run["run_id"], run["run_token"])
    await sql.execute(
        "alter table leasehold.runs rename to runs_"
    )  # a database restored to before that run, for a while
    await sql.execute("create table leasehold.runs (like leasehold.runs_)")
    assert await find(worker, key) == [key[0]]
    await sql.execute("drop table leasehold.runs; alter table leasehold.runs_ rename to runs")
    await sql.execute("update leasehold.removals set next_at = leasehold.clock()")
    assert await take(worker) == []
    assert "the run is open" in await sql.fetchval("select error from leasehold.removals where done_at is not null")


async def test_without_a_rule_for_orphans_none_is_wanted_gone(sql, worker):
    await sql.execute("update leasehold.retention set keep = null where what = 'orphans'")
    assert await find(worker, (4711, None)) == []
