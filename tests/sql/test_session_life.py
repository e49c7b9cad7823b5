"""The life of a session's row: made by its first use, another version when it becomes another, the same one while it is only used."""

from datetime import timedelta

import pytest
from sql.test_storage import store
from sql.test_usage import say

OVERVIEW = "select * from leasehold.session_overview where key = 'talk'"


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire(lease=timedelta(days=400))


@pytest.fixture
def begin(sql, job, worker):
    """A run of the conversation, that says its session if there is one to say."""

    async def one(says=None, /, **columns):
        await job(session_key="talk", **columns)
        run = await worker.claim_one()
        if says is not None:
            await say(sql, run, {"id": says}, kind="session")
        return run

    return one


@pytest.fixture
def look_at(sql):
    """What its readers see of it: the columns of this name."""

    async def one(*names):
        row = await sql.fetchrow(OVERVIEW)
        return tuple(row[name] for name in names)

    return one


@pytest.mark.rule("A27")
async def test_being_used_is_no_news_of_a_session_nor_of_its_thread(sql, begin, worker, clock, look_at):
    await worker.finish(await begin("s-1", thread="t"))
    before = await look_at("version", "created_at", "state", "display")
    for _ in range(2):
        await clock.forward(minutes=1)
        run = await begin(thread="t")
        seen = await sql.fetchval("select version from leasehold.threads")
        await say(sql, run, {"id": "s-1"}, kind="session")
        read = "select leasehold.mark_thread_read('t', 'ann', $1)"
        assert await sql.fetchval(read, seen) is False, "nothing has happened since"
        assert await look_at("last_run", "live_run", "updated_at") == (run["run_id"], run["run_id"], clock.now)
        await worker.finish(run)
        assert await look_at("version", "created_at", "state", "display") == before


@pytest.mark.rule("G43")
async def test_a_session_is_made_by_its_first_use_and_has_a_new_version_when_it_becomes_another(
    sql, begin, worker, look_at
):
    seen = []

    async def becomes(*expected):
        *found, version = await look_at("display", "poisoned_reason", "storage", "version")
        assert tuple(found) == expected
        seen.append(version)

    await worker.finish(await begin("s-1"))
    await becomes("s-1", None, "none")
    await worker.finish(await begin("s-2"))
    await becomes("s-2", None, "none")
    await worker.finish(await begin(), "failed", "session_rejected")
    await becomes("s-2", "session_rejected", "none")
    await sql.execute("select leasehold.cancel(id) from leasehold.jobs where finished_at is null")
    await sql.execute("select leasehold.reset_session('fixer', 'talk')")
    await becomes(None, None, "none")
    run = await begin("s-3")
    await becomes("s-3", None, "none")
    await store(sql, worker, run)
    await becomes("s-3", None, "directory")
    await worker.finish(run)
    await sql.execute("select leasehold.evict_session('fixer', 'talk')")
    await becomes(None, None, "evicted")
    assert seen == sorted(set(seen)) and seen[0] == 1
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 1


@pytest.mark.rule("G15")
async def test_a_session_says_whose_it_is_its_version_its_state_and_its_storage(sql, begin, worker, clock, look_at):
    begun = clock.now
    run = await begin("s-1")
    await store(sql, worker, run, size=7, keep=timedelta(days=9))
    assert await look_at("tenant", "agent", "adapter", "key", "display") == (
        "default",
        "fixer",
        "command",
        "talk",
        "s-1",
    )
    assert await look_at("state", "live_run", "last_run", "last_error") == (
        "running",
        run["run_id"],
        run["run_id"],
        None,
    )
    assert await look_at("storage", "host_id", "bytes") == ("directory", "host", 7)
    version = (await look_at("version"))[0]
    await clock.forward(minutes=1)
    await worker.finish(run, "failed", "exit_code", "it broke")
    assert await look_at("state", "live_run", "last_run", "last_error") == ("idle", None, run["run_id"], "it broke")
    assert await look_at("created_at", "updated_at", "expires_at", "version") == (
        begun, clock.now, begun + timedelta(days=9), version,
    )  # fmt: skip
    where = "select path, conversation, kind from leasehold.sessions"
    assert tuple(await sql.fetchrow(where)) == ("sessions/talk", run["run_id"], "directory")
