"""The rows behind conversations: whose a session is, what two first uses at once do, and versions that only grow."""

import asyncio

import pytest
from sql.test_usage import say

OTHER_ADAPTER = """
    alter table leasehold.agents drop constraint agents_adapter;
    set session_replication_role = replica;
    update leasehold.agents set adapter = 'another';
    reset session_replication_role"""


async def given(worker, run):
    return (await worker.read([run]))[0]["session"]


@pytest.mark.rule("S82", "S83", "A17", "A26", "A58", "A60", "P13", "P69", "P70")
async def test_a_session_is_made_by_its_first_use_and_belongs_to_one_adapter(sql, worker, job, clock):
    await job(session_key="talk")
    run = await worker.claim_one()
    assert await given(worker, run) is None
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    await say(sql, run, {"id": "s-1"}, kind="session")
    row = await sql.fetchrow("select * from leasehold.sessions")
    names = ("tenant", "agent", "adapter", "key", "backend_session_id", "last_run", "updated_at")
    assert [row[name] for name in names] == ["default", "fixer", "command", "talk", "s-1", run["run_id"], clock.now]
    await worker.finish(run)
    await job(session_key="talk")
    again = await worker.claim_one()
    assert await given(worker, again) == "s-1"
    await worker.finish(again)
    await sql.execute(OTHER_ADAPTER)
    await job(session_key="talk")
    assert await given(worker, await worker.claim_one()) is None
    assert await sql.fetchval("select backend_session_id from leasehold.sessions where adapter = 'command'") == "s-1"


@pytest.mark.rule("PW38")
async def test_two_first_uses_at_once_are_one_session_and_reading_it_writes_nothing(sql, worker, job, connect):
    for _ in range(8):
        await job(session_key="talk", conflict_policy="allow")
    runs = await worker.claim(8)
    assert {await given(worker, run) for run in runs} == {None}
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 0
    lines = [await connect() for _ in runs]
    await asyncio.gather(
        *(
            say(line, run, {"id": f"s-{n}"}, kind="session")
            for n, (line, run) in enumerate(zip(lines, runs, strict=True))
        )
    )
    assert await sql.fetchval("select count(*) from leasehold.sessions") == 1
    assert await sql.fetchval("select count(distinct session_after) from leasehold.runs") == 8


@pytest.mark.rule("A81", "AW11", "G19", "G32", "GW4")
async def test_versions_of_threads_come_from_one_growing_sequence(sql, worker, job):
    seen, now = [], "select version from leasehold.threads where thread = $1"
    for name in ("a", "b", "a", "b"):
        born = await job(thread=name)
        seen.append(await sql.fetchval(now, name))
        await worker.finish(await worker.claim_job(born))
        seen.append(await sql.fetchval(now, name))
        await sql.execute("select leasehold.set_thread($1, title => $2)", name, f"title {len(seen)}")
        seen.append(await sql.fetchval(now, name))
    assert seen == sorted(set(seen))
