"""The real outcome of a run that was given up as lost: its body is handed out, its output taken, once."""

import json

import pytest


@pytest.fixture
async def lost(worker, hire, job, clock):
    """A run that another worker has reaped; it had shipped ten bytes."""
    await job()
    run = await worker.claim_one()
    assert await worker.ship((run, "stdout", 0, b"a" * 10)) == []
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta")
    assert [row["run_id"] for row in await reaper.reap()] == [run["run_id"]]
    return run


@pytest.fixture
def late(sql, worker):
    class Late:
        async def read(self, run, token=None):
            return await sql.fetch(
                "select * from leasehold.read_late($1, $2, $3, $4)",
                *worker.me, [run["run_id"]], [token or run["run_token"]],
            )  # fmt: skip

        async def append(self, run, *chunks):
            await sql.execute(
                "select leasehold.append_late_output($1, $2, $3, $4, $5, $6, $7)", *worker.me,
                run["run_id"], run["run_token"], ["stdout"] * len(chunks), [at for at, _ in chunks], [c for _, c in chunks],
            )  # fmt: skip

        async def finish(self, run, output):
            return await sql.fetchrow(
                "select * from leasehold.finish_run($1, $2, $3, $4, 'succeeded', output => $5)",
                *worker.me, run["run_id"], run["run_token"], json.dumps(output),
            )  # fmt: skip

        async def offsets(self, run):
            rows = await sql.fetch(
                "select byte_offset from leasehold.output where run_id = $1 order by byte_offset", run["run_id"]
            )
            return [row[0] for row in rows]

    return Late()


async def test_its_body_says_how_far_it_had_come_to_whoever_knows_its_token(late, lost, worker):
    [body] = await late.read(lost)
    assert (body["run_id"], body["stdout_shipped"], body["agent"]) == (lost["run_id"], 10, "fixer")
    assert await late.read(lost, token=worker.token) == []


async def test_the_rest_of_its_output_arrives_and_a_repeat_is_harmless(late, lost):
    await late.append(lost, (10, b"b" * 10), (20, b"c" * 10))
    await late.append(lost, (20, b"c" * 10))
    assert await late.offsets(lost) == [0, 10, 20]


async def test_once_told_it_is_closed_for_good(late, lost, refused):
    assert (await late.finish(lost, {}))["disposition"] == "late"
    assert await late.read(lost) == []
    async with refused("LH010", "has ended as lost"):
        await late.append(lost, (10, b"b"))
    assert await late.offsets(lost) == [0]


async def test_what_had_scrolled_out_of_its_tail_goes_with_the_late_outcome(late, lost):
    await late.append(lost, *((at, b"x" * 10) for at in range(10, 100, 10)))
    kept = {"stdout": {"bytes": 100, "kept": [[0, 20], [75, 100]], "dropped": 55}, "stderr": {"bytes": 0}}
    await late.finish(lost, kept)
    assert await late.offsets(lost) == [0, 10, 70, 80, 90]


async def test_a_run_that_was_not_lost_takes_nothing_late(late, worker, job, refused):
    await job()
    run = await worker.claim_one()
    await worker.finish(run)
    assert await late.read(run) == []
    async with refused("LH010", "has ended as succeeded"):
        await late.append(run, (0, b"x"))


async def test_a_run_that_lives_takes_nothing_late_and_is_not_said_to_have_ended(late, worker, job, refused):
    await job()
    run = await worker.claim_one()
    async with refused("LH016", "has not ended"):
        await late.append(run, (0, b"x"))
