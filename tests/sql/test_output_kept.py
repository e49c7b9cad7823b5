"""What is kept of the output of a live run, and where its reader may go on: trim_output() and save_checkpoints()."""

import asyncio
import json
import random

import pytest
from asyncpg import PostgresError


@pytest.fixture
async def run(worker, job):
    await job()
    return await worker.claim_one()


@pytest.fixture
def offsets(sql):
    async def one(run, stream="stdout"):
        rows = await sql.fetch(
            "select byte_offset from leasehold.output where run_id = $1 and stream = $2 order by 1",
            run["run_id"],
            stream,
        )
        return [row[0] for row in rows]

    return one


async def chunks(worker, run, *starts, size=10, stream="stdout", sql=None):
    assert await worker.ship(*((run, stream, start, b"x" * size) for start in starts), sql=sql) == []


async def test_chunks_in_the_range_go_and_one_that_reaches_beyond_it_loses_its_beginning(worker, run, offsets):
    await chunks(worker, run, 0, 10, 20, 30, 40, 50)
    await chunks(worker, run, 0, 10, stream="stderr")
    assert await worker.trim((run, "stdout", 5, 45)) == []
    assert await offsets(run) == [0, 45, 50]
    assert await offsets(run, "stderr") == [0, 10]
    assert await worker.trim((run, "stdout", 5, 45)) == []


@pytest.mark.parametrize("second", [(1, 10), (2, 20), (5, 10)])
async def test_chunks_that_two_lives_of_a_daemon_cut_differently_do_not_stand_in_the_way(worker, run, offsets, second):
    """The first life still wrote while the second did: their chunks overlap."""
    await chunks(worker, run, 0, 30)
    await chunks(worker, run, second[0], size=second[1])
    assert await worker.trim((run, "stdout", 0, 5)) == []
    assert {5, 30} <= set(await offsets(run))


async def test_the_last_chunk_stays_because_it_says_how_far_the_run_was_shipped(worker, run, offsets):
    await chunks(worker, run, 0, 10, 20)
    await worker.trim((run, "stdout", 0, 30), (run, "stdout", 0, 1000))
    assert await offsets(run) == [20]
    assert (await worker.read([run]))[0]["stdout_shipped"] == 30
    await chunks(worker, run, 30)
    await worker.trim((run, "stdout", 0, 30))
    assert await offsets(run) == [30]


async def test_ranges_of_many_runs_go_in_one_call_and_the_runs_that_are_not_live_are_named(worker, job, offsets):
    for _ in range(3):
        await job()
    live, ended, forged = await worker.claim()
    for run in (live, ended, forged):
        await chunks(worker, run, 0, 10, 20)
    await worker.finish(ended)
    stranger = dict(forged) | {"run_token": live["run_token"]}
    refused = await worker.trim(
        *((r, "stdout", 0, 20) for r in (live, ended, stranger)), ({**live, "run_id": 4711}, "stdout", 0, 20)
    )
    assert sorted(refused) == [ended["run_id"], forged["run_id"], 4711]
    assert [await offsets(r) for r in (live, ended, forged)] == [[20], [0, 10, 20], [0, 10, 20]]


async def test_a_checkpoint_is_what_the_next_reader_gets_the_last_of_a_batch_wins(worker, run, hire):
    assert (await worker.read([run]))[0]["checkpoint"] is None
    assert await worker.checkpoint((run, {"offset": 10}), (run, {"offset": 20, "open": ["a"]})) == []
    assert await worker.checkpoint() == []
    successor = await hire()
    await successor.adopt([run])
    assert json.loads((await successor.read([run]))[0]["checkpoint"]) == {"offset": 20, "open": ["a"]}


async def test_checkpoints_of_runs_that_are_not_live_are_refused_by_name_and_the_others_are_saved(sql, worker, job):
    for _ in range(3):
        await job()
    live, ended, forged = await worker.claim()
    await worker.finish(ended)
    stranger = dict(forged) | {"run_token": live["run_token"]}
    refused = await worker.checkpoint(*((r, {"n": 1}) for r in (live, ended, stranger, {**live, "run_id": 4711})))
    assert sorted(refused) == [ended["run_id"], forged["run_id"], 4711]
    assert await sql.fetchval("select array_agg(id) from leasehold.runs where checkpoint is not null") == [
        live["run_id"]
    ]


async def test_a_run_that_is_saved_right_and_wrong_in_one_batch_is_named(worker, run):
    stranger = dict(run) | {"run_token": worker.token}
    assert await worker.checkpoint((run, {}), (stranger, {})) == [run["run_id"]]


@pytest.mark.rule("P85")
async def test_whoever_holds_the_token_reads_what_is_stored_page_by_page(sql, worker, run, hire):
    async def read(run, after, past, stream="stdout"):
        rows = await sql.fetch(
            "select * from leasehold.read_output($1, $2, $3, $4, $5)",
            run["run_id"], run["run_token"], stream, after, past,
        )  # fmt: skip
        return [(row["byte_offset"], len(row["bytes"])) for row in rows]

    mib = 1024 * 1024
    await chunks(worker, run, 0, 10, 20)
    await chunks(worker, run, 30, 30 + mib, 30 + 2 * mib, size=mib)
    assert await read(run, -1, 25) == [(0, 10), (10, 10), (20, 10)]
    assert await read(run, 0, 20) == [(10, 10)]
    assert await read(run, -1, 10 * mib) == [(0, 10), (10, 10), (20, 10), (30, mib)]
    assert await read(run, 30, 10 * mib) == [(30 + mib, mib)]
    assert await read(run, 30 + 2 * mib, 10 * mib) == []
    assert await read(run, -1, 25, "stderr") == []
    assert await read(dict(run) | {"run_token": worker.token}, -1, 25) == []
    await worker.finish(run)
    assert len(await read(run, -1, 25)) == 3


async def test_a_new_attempt_has_no_checkpoint(worker, run):
    await worker.checkpoint((run, {"offset": 10}))
    await worker.finish(run, "interrupted", "stopped")
    assert (await worker.read(await worker.claim()))[0]["checkpoint"] is None


@pytest.mark.parametrize("call", [
    "select leasehold.trim_output(array[1::bigint], '{}', '{stdout}', '{0}', '{1}')",
    "select leasehold.save_checkpoints(array[1::bigint], '{}', '{null}')",
])  # fmt: skip
async def test_arrays_of_different_lengths_are_refused(sql, run, refused, call):
    async with refused("LH016", "differ in length"):
        await sql.execute(call)


@pytest.mark.race
async def test_trimming_beside_shipping_loses_nothing_of_head_and_tail(sql, worker, run, connect, offsets):
    """A shipper that repeats itself and a trimmer that follows it: what is kept is the head, the tail and no gap in it."""
    size, total, head, tail = 100, 400, 1000, 2000
    shipper, trimmer = await connect(), await connect()
    shipped, past = 0, asyncio.Event()

    async def ship():
        nonlocal shipped
        for n in range(total):
            await chunks(worker, run, n * size, size=size, sql=shipper)
            shipped = (n + 1) * size
        past.set()

    async def trim():
        while not past.is_set():
            at_least = shipped
            assert await worker.trim((run, "stdout", head, shipped - tail), sql=trimmer) == []
            assert (await worker.read([run]))[0]["stdout_shipped"] >= at_least
        await worker.trim((run, "stdout", head, shipped - tail), sql=trimmer)

    await asyncio.gather(ship(), trim())
    end = total * size
    assert await offsets(run) == [*range(0, head, size), *range(end - tail, end, size)]


@pytest.mark.rule("GW3")
@pytest.mark.race
async def test_batches_over_the_same_runs_in_any_order_never_end_in_a_deadlock(sql, fixer, hire, connect, sane):
    """Lock order: heads ascending, then runs, whatever the order of a batch; reapers and appenders beside it."""
    workers = [await hire(instance=f"w{n}") for n in range(2)]
    await sql.execute("insert into leasehold.jobs (agent, prompt) select 'fixer', 'x' from generate_series(1, 60)")
    runs = [run for worker in workers for run in await worker.claim(30)]
    lines = [await connect() for _ in range(6)]
    for line in (sql, *lines):
        await line.execute("set deadlock_timeout = '10ms'")
    chance = random.Random(7)

    def shuffled():
        return chance.sample(runs, len(runs))

    async def batches(line, call, turns=25):
        for _ in range(turns):
            await call(line)

    async def checkpoint(line):
        order = shuffled()
        await line.execute(
            "select leasehold.save_checkpoints($1, $2, $3)",
            [run["run_id"] for run in order], [run["run_token"] for run in order], ['{"n": 1}'] * len(order),
        )  # fmt: skip

    async def trim(line):
        await workers[0].trim(*((run, "stdout", 0, 1) for run in shuffled()), sql=line)

    async def say(line):
        order = shuffled()
        await line.execute(
            "select leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
            [run["run_id"] for run in order], [run["run_token"] for run in order], [None] * len(order),
            ["message"] * len(order), ["info"] * len(order), [None] * len(order), ["x"] * len(order), [None] * len(order),
        )  # fmt: skip

    async def end(line):
        reaper = await hire(line, instance="reaper")
        await line.execute(
            "update leasehold.workers set lease_expires_at = leasehold.clock() - interval '1 ms' where id = $1",
            workers[1].id,
        )
        for _ in range(5):
            await reaper.reap()
            await asyncio.sleep(0.02)

    calls = (checkpoint, checkpoint, trim, say, say)
    try:
        await asyncio.gather(*(batches(line, call) for line, call in zip(lines[1:], calls, strict=True)), end(lines[0]))
    except PostgresError as error:
        raise AssertionError(f"{error.sqlstate}: {error}") from error
    assert await sql.fetchval("select count(*) from leasehold.runs where ended_at is null") == 30
    await sane()
