"""Runs with a configuration directory of their own: what their session keeps, on which host, and when it goes."""

import json
from datetime import timedelta

import pytest
from sql.test_storage import evict, take, wanted
from sql.test_usage import say

LEASE = timedelta(days=400)
ROW = "select kind, path, host_id, conversation from leasehold.sessions where key = 'talk'"


@pytest.fixture
async def worker(fixer, clock, hire, sql):
    await sql.execute("update leasehold.agents set private_config = true")
    return await hire(lease=LEASE)


@pytest.fixture
def begin(sql, job, worker):
    async def one(says=None, /, who=None, **columns):
        await job(**{"session_key": "talk", **columns})
        run = dict(await (who or worker).claim_one())
        [body] = await (who or worker).read([run])
        run |= {"given": body["session"], "conversation": body["conversation"], "private": body["private_config"]}
        if says is not None:
            await say(sql, run, {"id": says}, kind="session")
        return run

    return one


async def test_the_session_has_the_directory_of_its_conversation_from_its_first_word_on(sql, begin, worker, clock):
    run = await begin("s-1")
    place = f"sessions/{run['run_id']}"
    assert run["private"] and tuple(await sql.fetchrow(ROW)) == ("directory", place, "host", run["run_id"])
    await worker.finish(run)
    again = await begin("s-1")
    assert (again["given"], again["conversation"]) == ("s-1", run["run_id"])
    await clock.forward(days=1)
    await worker.finish(again)
    assert await sql.fetchval("select expires_at from leasehold.sessions") == clock.now + timedelta(days=90)
    assert await wanted(sql) == []


async def test_the_directory_of_a_run_that_never_was_in_a_session_goes_with_it(sql, begin, worker):
    run = await begin()
    assert await take(worker) == []
    await worker.fail(run)
    assert await take(worker) == [f"sessions/{run['run_id']}"]


@pytest.mark.rule("G48", "G49", "AW33")
async def test_it_goes_when_its_time_has_come_and_who_needs_it_fails_at_once(sql, begin, worker, clock):
    run = await begin("s-1")
    await worker.finish(run)
    await clock.forward(days=91)
    await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'removals')", *worker.me)
    assert await take(worker) == [f"sessions/{run['run_id']}"]
    late = await begin()
    [body] = await worker.read([late])
    assert body["session_evicted"] and await wanted(sql) == [f"sessions/{run['run_id']}"]


@pytest.mark.rule("PW39")
async def test_a_reset_takes_the_directory_when_the_run_in_it_has_ended(sql, begin, worker, clock):
    run = await begin("s-1")
    await sql.fetchval("select leasehold.reset_session('fixer', 'talk')")
    assert await wanted(sql) == [f"sessions/{run['run_id']}"] and await take(worker) == []
    await worker.finish(run)
    await clock.forward(minutes=2)
    fresh = await begin("s-2")
    assert fresh["given"] is None and fresh["conversation"] == fresh["run_id"]
    assert await take(worker) == [f"sessions/{run['run_id']}"]
    assert (await sql.fetchrow(ROW))["path"] == f"sessions/{fresh['run_id']}"


async def test_a_conversation_that_begins_anew_leaves_its_old_directory(sql, begin, worker):
    run = await begin("s-1")
    await worker.finish(run)
    fresh = await begin("s-2", new_session=True)
    assert (await sql.fetchrow(ROW))["path"] == f"sessions/{fresh['run_id']}"
    assert await take(worker) == [f"sessions/{run['run_id']}"]
    await worker.finish(fresh)
    assert await take(worker) == []


async def test_a_directory_of_a_run_that_is_evicted_afterwards_is_wanted_once(sql, begin, worker):
    run = await begin("s-1")
    await worker.finish(run)
    await evict(sql)
    assert await wanted(sql) == [f"sessions/{run['run_id']}"]


async def test_on_another_host_a_conversation_begins_anew_and_says_why(sql, begin, worker, hire):
    first = await begin("s-1")
    await worker.finish(first)
    far = await hire(instance="far", host="elsewhere", keeper="k-2", lease=LEASE)
    run = await begin(who=far)
    assert run["given"] is None and run["conversation"] == run["run_id"]
    told = await sql.fetchval(
        "select data ->> 'session_elsewhere' from leasehold.events where kind = 'started' order by run_id desc"
    )
    assert told == "host"
    story = [row[0] for row in await sql.fetch("select leasehold.why($1)", run["job_id"])]
    assert any("What its session has kept is on host host, so it began a new one" in line for line in story)
    await say(sql, run, {"id": "s-2"}, kind="session")
    assert tuple(await sql.fetchrow(ROW))[:3] == ("directory", f"sessions/{run['run_id']}", "elsewhere")
    assert await take(worker) == [f"sessions/{first['run_id']}"] and await take(far) == []


async def test_what_was_said_in_another_configuration_is_not_gone_on_with(sql, begin, worker):
    await sql.execute("update leasehold.agents set private_config = false")
    await worker.finish(await begin("s-1"))
    await sql.execute("update leasehold.agents set private_config = true")
    assert (await begin("s-2"))["given"] is None


async def test_a_busy_credential_parks_the_job_and_a_broken_configuration_ends_it(sql, begin, worker, clock):
    run = await begin(max_attempts=3)
    answer = await worker.finish(run, "interrupted", "credential_busy")
    assert answer["job_status"] == "queued"
    assert timedelta(minutes=1) <= answer["retry_at"] - clock.now < timedelta(minutes=2)
    assert await sql.fetchval("select attempts from leasehold.jobs") == 0
    await clock.forward(minutes=2)
    again = await worker.claim_one()
    assert (await worker.finish(again, "failed", "config_failed"))["job_status"] == "failed"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"config_files": '{"config.toml": "x"}', "private_config": False}, "it has none"),
        ({"credential": "auth.json"}, "not an absolute path"),
        ({"credential_name": "x"}, "no credential"),
        ({"credential": "/a", "credential_name": "../x"}, "credential_name is not"),
        ({"config_files": '{"../x": "y"}'}, "is not the name of a file"),
        ({"config_files": '{"a/./x": "y"}'}, "is not the name of a file"),
        ({"config_files": '{"x": 7}'}, "is a JSON number, not text"),
        ({"config_files": "[]"}, "is a JSON array"),
        ({"config_files": json.dumps({f"{n}": "x" * 60_000 for n in range(5)})}, "262144 bytes together"),
        ({"credential_lock": "never"}, "neither"),
    ],
)
async def test_what_is_no_configuration_is_refused(sql, clock, refused, columns, says):
    columns = {"private_config": True, **columns}
    values = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    async with refused("LH124", says=says):
        await sql.execute(
            f"insert into leasehold.agents (name, command, {', '.join(columns)}) values ('x', '{{true}}', {values})",
            *columns.values(),
        )
