"""What happened and what was written: numbered without gaps, exactly once, fenced; and readers that never skip."""

import asyncio
import contextlib
import random

import asyncpg
import pytest


async def spoken(sql, job):
    return [
        row[0]
        for row in await sql.fetch(
            "select message from leasehold.events where job_id = $1 and kind = 'message' order by seq", job
        )
    ]


@pytest.mark.rule("S87", "A13", "GW2", "O3", "O17", "O36")
async def test_events_of_many_runs_in_one_call_are_numbered_in_order(sql, worker, job, story, sane):
    await job(), await job()
    one, two = await worker.claim()
    assert (
        await worker.say((one, None, "a"), (two, None, "x"), (one, None, "b"), (two, None, "y"), (one, None, "c")) == []
    )
    assert await spoken(sql, one["job_id"]) == ["a", "b", "c"]
    assert await story(two["job_id"]) == ["queued", "started", "message", "message"]
    await sane()


async def test_a_mark_makes_an_event_exactly_once(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await worker.say((run, 0, "a"), (run, 0, "a2"), (run, 7, "b"))
    await worker.say((run, 0, "a"), (run, 0, "a2"), (run, 7, "b"))  # the answer was lost
    await worker.say((run, 7, "b"), (run, 9, "c"), (run, None, "free"), (run, None, "free"))
    assert await spoken(sql, run["job_id"]) == ["a", "a2", "b", "c", "free", "free"]
    assert (await worker.read([run]))[0]["events_mark"] == 9


@pytest.mark.rule("PW21")
async def test_marks_begin_anew_with_each_run(sql, worker, job):
    await job(max_attempts=2)
    first = await worker.claim_one()
    await worker.say((first, 5, "first"))
    await worker.finish(first, "interrupted", "stopped")
    second = await worker.claim_one()
    assert (await worker.read([second]))[0]["events_mark"] == -1
    await worker.say((second, 0, "second"))
    assert await spoken(sql, first["job_id"]) == ["first", "second"]


@pytest.mark.rule("A54", "AW1", "AW32", "GW27", "OW11", "X13")
async def test_a_run_that_is_not_live_is_refused_by_name_and_the_others_are_written(sql, worker, job, hire):
    for _ in range(3):
        await job()
    live, ended, forged = await worker.claim()
    await worker.finish(ended)
    forged = dict(forged) | {"run_token": worker.token}
    unknown = dict(live) | {"run_id": 4711}
    refused = await worker.say(
        (live, None, "a"), (ended, None, "no"), (forged, None, "no"), (unknown, None, "no"), (ended, None, "no")
    )
    assert sorted(refused) == sorted([ended["run_id"], forged["run_id"], 4711])
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'message'") == 1


@pytest.mark.rule("S24", "S87", "G27", "O16")
async def test_strange_levels_and_kinds_do_not_poison_a_batch(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await sql.fetch(
        "select leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
        [run["run_id"]] * 3, [run["run_token"]] * 3, [None] * 3, ["x" * 300, None, "artifact"], ["fatal", None, "error"], [None] * 3,
        ["m"] * 3, [None, '{"tokens": 7}', "null"],
    )  # fmt: skip
    rows = await sql.fetch("select kind, level from leasehold.events where seq > 2 order by seq")
    assert [tuple(row) for row in rows] == [("x" * 300, "info"), ("message", "info"), ("artifact", "error")]


@pytest.mark.rule("GW25")
async def test_arrays_of_different_lengths_are_refused(sql, worker, job, refused):
    async with refused("LH016"):
        await sql.fetch("select leasehold.append_events('{1}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')")
    async with refused("LH016"):
        await sql.fetch("select leasehold.append_output('{1}', '{}', '{}', '{}', '{}')")
    assert await worker.say() == await worker.ship() == []


@pytest.mark.rule("S25", "S76", "O12", "OW7")
async def test_progress_is_a_phase_and_an_event(sql, worker, job, refused, story):
    await job()
    run = await worker.claim_one()
    report = "select leasehold.report_progress($1, $2, 'testing', '3 of 5')"
    await sql.execute(report, run["run_id"], run["run_token"])
    assert await sql.fetchval("select situation from leasehold.job_overview") == "testing"
    assert await story(run["job_id"]) == ["queued", "started", "progress"]
    await worker.finish(run)
    async with refused("LH010"):
        await sql.execute(report, run["run_id"], run["run_token"])
    async with refused("LH011"):
        await sql.execute(report, run["run_id"], worker.token)
    async with refused("LH013"):
        await sql.execute(report, 4711, worker.token)


async def test_output_is_stored_by_offset_and_a_repeated_chunk_is_skipped(sql, worker, job):
    await job()
    run = await worker.claim_one()
    chunks = [(run, "stdout", 0, b"\x00\xff\xfe"), (run, "stdout", 3, b"abc"), (run, "stderr", 0, b"oops")]
    assert await worker.ship(*chunks) == await worker.ship(*chunks) == []
    assert (
        await sql.fetchval(
            "select string_agg(bytes, '' order by byte_offset) from leasehold.output where run_id = $1 and stream = 'stdout'",
            run["run_id"],
        )
        == b"\x00\xff\xfeabc"
    )
    body = (await worker.read([run]))[0]
    assert (body["stdout_shipped"], body["stderr_shipped"]) == (6, 4)


async def test_output_of_a_run_that_is_not_live_is_refused(sql, worker, job, hire):
    await job(), await job()
    live, ended = await worker.claim()
    await worker.finish(ended)
    assert await worker.ship((live, "stdout", 0, b"x"), (ended, "stdout", 0, b"x")) == [ended["run_id"]]
    await (await hire()).adopt([live])
    assert (
        await worker.ship((live, "stdout", 1, b"y")) == []
    )  # the fence is the run: the same keeper's bytes are the same bytes


async def page_through(sql, rows_max=500, cursor=None, within=20):
    """Page by page until everything there is was seen; any writer of the cluster may delay a page."""
    seen, total = [], await sql.fetchval("select count(*) from leasehold.events")
    async with asyncio.timeout(within):
        while len(seen) < total:
            rows = await sql.fetch("select * from leasehold.changes($1, $2)", cursor, rows_max)
            assert len(rows) <= rows_max
            cursor = rows[-1]["cursor"] if rows else cursor
            seen += [(row["job_id"], row["seq"]) for row in rows]
            await asyncio.sleep(0 if rows else 0.02)
    return cursor, seen


@pytest.mark.rule("P82", "PW51")
async def test_changes_pages_through_everything_once(sql, worker, job, eventually):
    for _ in range(7):
        await job()
    for run in await worker.claim():
        await worker.finish(run)
    cursor, seen = await page_through(sql, 4)
    assert len(seen) == len(set(seen)) == 21
    assert await sql.fetch("select * from leasehold.changes($1)", cursor) == []
    born = await job()
    await eventually(sql, "select job_id from leasehold.changes($1)", cursor, expected=born)


@pytest.mark.rule("PW51", "GW5", "X20")
async def test_changes_waits_for_an_older_transaction_instead_of_skipping_it(sql, fixer, job, connect, eventually):
    slow = await connect()
    async with slow.transaction():
        late = await job(slow)
        early = await job()
        assert await sql.fetch("select * from leasehold.changes()") == []
    await eventually(sql, "select array_agg(job_id order by job_id) from leasehold.changes()", expected=[late, early])


@pytest.mark.rule("AW17")
async def test_a_wrong_cursor_is_an_error_and_one_from_before_a_restore_too(sql, fixer, job, refused):
    await job()
    cursor, _ = await page_through(sql)
    for wrong in ("", "x", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "1-2-3-99999999999"):
        async with refused("LH032", "is not one of ours"):
            await sql.fetch("select * from leasehold.changes($1)", wrong)
    await sql.execute("select leasehold.after_restore()")
    async with refused("LH033", "from before the database was restored"):
        await sql.fetch("select * from leasehold.changes($1)", cursor)
    assert len((await page_through(sql))[1]) == 1


@pytest.mark.rule("A13", "PW21", "G11", "G27", "GW1", "GW5", "X20")
@pytest.mark.race
async def test_writers_cancellers_and_an_ender_leave_no_gap_and_a_reader_misses_nothing(
    sql, hire, fixer, connect, sane
):
    worker = await hire()
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 60)")
    runs = await worker.claim()
    stop, over, seen = asyncio.Event(), asyncio.Event(), set()

    async def writer(number):
        connection, chance = await connect(), random.Random(number)
        own = type(worker)(connection, {"worker": worker.id, "token": worker.token})
        while not stop.is_set():
            with contextlib.suppress(asyncpg.LockNotAvailableError):  # nothing was written then
                async with connection.transaction():
                    await own.say(*[(chance.choice(runs), None, "m") for _ in range(chance.choice([1, 10, 80]))])
                    await asyncio.sleep(chance.choice([0] * 9 + [0.1]))

    async def canceller():
        connection, chance = await connect(), random.Random(50)
        while not stop.is_set():
            job = chance.choice(runs)["job_id"]
            if await connection.fetchval("select status from leasehold.jobs where id = $1", job) == "running":
                try:
                    await connection.execute("select leasehold.cancel($1)", job)
                except Exception as error:
                    assert error.sqlstate == "LH021"
            await asyncio.sleep(0.005)

    async def ender():
        connection = await connect()
        for run in runs[:20]:
            await worker.finish(run, "interrupted", "stopped", sql=connection)
            await asyncio.sleep(0.1)

    async def reader():
        connection, cursor = await connect(), None
        while True:
            finishing = over.is_set()
            rows = await connection.fetch("select * from leasehold.changes($1, 200)", cursor)
            for row in rows:
                assert (row["job_id"], row["seq"]) not in seen
                seen.add((row["job_id"], row["seq"]))
            cursor = rows[-1]["cursor"] if rows else cursor
            if finishing and not rows:
                return
            await asyncio.sleep(0.005)

    reading = asyncio.create_task(reader())
    busy = [asyncio.create_task(part) for part in (*(writer(n) for n in range(4)), canceller(), ender())]
    await asyncio.sleep(3)
    stop.set()
    await asyncio.gather(*busy)
    over.set()
    await reading
    assert len(seen) == await sql.fetchval("select count(*) from leasehold.events")
    assert (
        await sql.fetchval("""select count(*) from leasehold.events e join leasehold.events x using (job_id, run_id)
        where x.kind in ('interrupted', 'cancelled') and e.kind = 'message' and e.seq > x.seq""")
        == 0
    )
    await sane()
