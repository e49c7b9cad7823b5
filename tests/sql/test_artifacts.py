"""Named results: from agents and from workers, of closed kinds, once, never larger than they may be, and loud when cut."""

import hashlib
import json

import pytest

ADD = "select leasehold.add_artifact($1, $2, $3, $4, $5, $6, $7, $8, $9)"


@pytest.fixture
def add(sql, worker, run):
    async def one(kind="diff", title="what changed", content="+x", content_type="text/x-diff", key=None):
        return await sql.fetchval(
            ADD, *worker.me, run["run_id"], run["run_token"], kind, title, content, content_type, key
        )

    return one


@pytest.fixture
def made(sql):
    async def all_():
        return await sql.fetch("select * from leasehold.artifacts order by id")

    return all_


@pytest.mark.rule("S7", "S26", "S27", "S91")
async def test_what_an_agent_makes_is_a_row_and_its_event_stays_small(sql, tell, run, made):
    said = {"kind": "plan", "title": "The plan", "content": "1. x", "content_type": "text/markdown"}
    for _ in range(2):  # the answer got lost
        await tell((run, 1, "artifact", None, said), (run, 2, "artifact", "odd", {"kind": "odd", "content": {"a": 1}}))
    first, second = await made()
    assert [first[name] for name in ("kind", "title", "content", "content_type", "bytes", "truncated")] == [
        "plan", "The plan", "1. x", "text/markdown", 4, False,
    ]  # fmt: skip
    assert first["sha256"] == hashlib.sha256(b"1. x").hexdigest()
    assert (second["kind"], second["title"], second["content_type"]) == ("other", "odd", "application/json")
    assert json.loads(second["content"]) == {"a": 1}
    events = await sql.fetch("select data from leasehold.events where kind = 'artifact' order by seq")
    assert [json.loads(row["data"]) for row in events] == [
        {k: v for k, v in said.items() if k != "content"},
        {"kind": "odd"},
    ]


@pytest.mark.rule("S7")
async def test_an_artifact_without_content_is_an_event_and_nothing_more(sql, tell, run, made):
    await tell(
        *[
            (run, n, "artifact", "report.md", data)
            for n, data in enumerate([None, {"name": "x"}, {"content": None}, [], "x"])
        ]
    )
    assert await made() == []
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'artifact'") == 5


@pytest.mark.rule("SW36", "S91")
async def test_what_is_too_large_is_cut_and_an_event_says_so(sql, tell, run, made, story, sane):
    await sql.execute("update leasehold.agents set artifact_limit = 10")
    for _ in range(2):
        await tell((run, 1, "artifact", "long", {"content": "ääääääää"}))
    [row] = await made()
    assert (row["content"], row["bytes"], row["truncated"]) == ("äääää", 16, True)
    assert row["sha256"] == hashlib.sha256("ääääääää".encode()).hexdigest(), "of the whole"
    assert await story(run["job_id"]) == ["queued", "started", "artifact", "artifact_truncated"]
    await tell(*[(run, n, "artifact", "more", {"content": "1234567890"}) for n in range(2, 40)])
    assert await sql.fetchval("select sum(octet_length(content)) from leasehold.artifacts") == 160, (
        "of one run together"
    )
    await sane()


@pytest.mark.rule("SW36")
async def test_a_run_has_room_for_so_many(sql, tell, run, made, story):
    for start in range(0, 1200, 400):
        await tell(*[(run, start + n, "artifact", "a", {"content": "x"}) for n in range(400)])
    assert len(await made()) == 1000
    assert (await story(run["job_id"])).count("artifacts_dropped") == 1


@pytest.mark.rule("S91")
async def test_a_worker_adds_one_and_a_key_makes_it_once(add, made, story, run):
    one = await add(key="final diff")
    assert await add(key="final diff", content="+y") == one
    assert await add() != await add()
    rows = await made()
    assert [row["content"] for row in rows] == ["+x"] * 3
    assert (await story(run["job_id"])).count("artifact") == 3


@pytest.mark.rule("S26", "S27", "S45")
async def test_kinds_and_types_are_closed_lists_and_only_a_live_run_has_any(add, worker, run, refused, login):
    async with refused("LH110", "there is no kind of artifact 'odd'"):
        await add(kind="odd")
    async with refused("LH110", "an artifact cannot be 'text/html'"):
        await add(content_type="text/html")
    async with refused("LH016"):
        await add(content=None)
    await worker.finish(run)
    async with refused("LH010"):
        await add()
    producer = await login("leasehold_producer")
    async with refused("42501", hint=False):
        await producer.execute(ADD, *worker.me, run["run_id"], run["run_token"], "diff", "t", "c", "text/plain", None)


@pytest.mark.rule("X9")
async def test_a_tenant_reads_its_own(sql, job, worker, tell, login, refused):
    await job(tenant="acme")
    await tell((await worker.claim_one(), 1, "artifact", "a", {"content": "x"}))
    acme, other = await login("leasehold_reader", "acme"), await login("leasehold_producer", "globex")
    assert await acme.fetchval("select count(*) from leasehold.artifacts") == 1
    assert await other.fetchval("select count(*) from leasehold.artifacts") == 0
    async with refused("42501", hint=False):
        await other.execute("delete from leasehold.artifacts")


@pytest.mark.parametrize("limit", [0, -1, None, 10**9])
async def test_a_limit_that_is_none_is_refused(sql, fixer, refused, limit):
    async with refused("LH045", "artifact_limit"):
        await sql.execute("update leasehold.agents set artifact_limit = $1", limit)


@pytest.mark.rule("A55", "A70", "A71")
async def test_a_session_tells_its_newest_run_or_the_one_that_is_named(sql, job, worker, tell, refused, login):
    trace = "select run_id, kind from leasehold.list_session_events($1, $2, only_output => $3)"
    runs = []
    for n in range(2):
        await job(session_key="s")
        runs.append(await worker.claim_one())
        await tell(
            (runs[n], 1, "session", None, {"id": "b"}),
            (runs[n], 2, "progress", "p", None),
            (runs[n], 3, "message", "hi", None),
        )
        if not n:
            await worker.finish(runs[0])
    [session] = await sql.fetch("select * from leasehold.session_activity")
    assert (session["active"], session["last_run"], session["last_event_seq"]) == (True, runs[1]["run_id"], 5)
    updated = await sql.fetchval("select updated_at from leasehold.sessions")
    assert [row["kind"] for row in await sql.fetch(trace, session["id"], None, False)] == [
        "started",
        "session",
        "progress",
        "message",
    ]
    assert {row["run_id"] for row in await sql.fetch(trace, session["id"], None, False)} == {runs[1]["run_id"]}
    assert [row["kind"] for row in await sql.fetch(trace, session["id"], runs[0]["run_id"], True)] == [
        "message",
        "succeeded",
    ]
    await worker.finish(runs[1])
    assert {row["run_id"] for row in await sql.fetch(trace, session["id"], None, False)} == {runs[1]["run_id"]}
    assert await sql.fetchval("select updated_at from leasehold.sessions") == updated
    await job()
    stranger = await worker.claim_one()
    async with refused("LH113"):
        await sql.fetch(trace, session["id"], stranger["run_id"], False)
    async with refused("LH112"):
        await sql.fetch(trace, 4711, None, False)
    reader = await login("leasehold_reader", "elsewhere")
    async with refused("LH112"):
        await reader.fetch(trace, session["id"], None, False)
