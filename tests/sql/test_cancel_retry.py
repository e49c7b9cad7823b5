"""What people ask of jobs that exist: cancel, retry; and the one way in which a status changes."""

import pytest


@pytest.mark.rule("S34", "S103", "A30", "A83", "O15", "X8")
async def test_a_queued_job_ends_at_once(sql, worker, job, look, story, clock):
    born = await job()
    assert await sql.fetchval("select leasehold.cancel($1, 'changed my mind')", born) == "cancelled"
    row = await look(born)
    assert (row["status"], row["reason"], row["message"], row["finished_at"]) == (
        "cancelled",
        "cancelled",
        "changed my mind",
        clock.now,
    )
    assert row["cancel_requested_by"] == await sql.fetchval("select session_user")
    assert await story(born) == ["queued", "cancelled"]
    assert await worker.claim() == []


@pytest.mark.rule("S117", "A57", "A83", "AW25", "AW27", "P88", "OW5", "X8")
async def test_a_running_job_is_only_asked_to_end_and_its_worker_is_told(sql, worker, job, look, story, connect):
    born, listener, heard = await job(), await connect(), []
    await listener.add_listener(f"leasehold_worker_{worker.id}", lambda *notice: heard.append(notice[3]))
    run = await worker.claim_one()
    assert await sql.fetchval("select leasehold.cancel($1, 'stop it')", born) == "requested"
    assert await sql.fetchval("select leasehold.cancel($1)", born) == "requested"
    assert (await look(born))["status"] == "running"
    assert await story(born) == ["queued", "started", "cancel_requested"]
    assert [tuple(row) for row in await worker.renew([run])][1:] == [("cancel", run["run_id"], "stop it")]
    await listener.fetchval("select 1")
    assert heard == ["", ""]


@pytest.mark.rule("SW6", "A90", "PW7", "OW5")
async def test_the_end_of_a_run_whose_cancel_was_asked_for_is_cancelled(sql, worker, job, look):
    born = await job(max_attempts=5)
    run = await worker.claim_one()
    await sql.execute("select leasehold.cancel($1)", born)
    answer = await worker.fail(run)
    assert answer["job_status"] == (await look(born))["status"] == "cancelled"


async def test_a_run_that_succeeded_before_the_stop_reached_it_has_succeeded(sql, worker, job, look):
    born = await job()
    run = await worker.claim_one()
    await sql.execute("select leasehold.cancel($1)", born)
    assert (await worker.finish(run))["job_status"] == (await look(born))["status"] == "succeeded"


@pytest.mark.rule("S102", "S117", "SW9", "A39", "A93", "P77", "P88", "O15")
async def test_cancelling_twice_and_cancelling_what_has_ended_is_refused(sql, worker, job, refused):
    first, second = await job(), await job()
    await sql.execute("select leasehold.cancel($1)", first)
    async with refused("LH021", f"job {first} has already ended: cancelled"):
        await sql.execute("select leasehold.cancel($1)", first)
    await worker.finish(await worker.claim_one())
    async with refused("LH021", "succeeded"):
        await sql.execute("select leasehold.cancel($1)", second)


@pytest.mark.rule("A29", "A94", "P77", "O11")
@pytest.mark.parametrize("function", ["cancel", "retry"])
async def test_an_unknown_job_is_named(sql, refused, function):
    async with refused("LH023", "there is no job 4711"):
        await sql.execute(f"select leasehold.{function}(4711)")
    async with refused("LH023", "there is no job NULL"):
        await sql.execute(f"select leasehold.{function}(null)")


@pytest.mark.rule("S78", "SW41")
async def test_a_failed_job_can_be_retried_and_gets_one_more_attempt(sql, worker, job, look, story):
    born = await job()
    await worker.fail(await worker.claim_one(), message="it broke", result='{"a": 1}')
    assert await sql.fetchval("select leasehold.retry($1)", born) == "queued"
    row = await look(born)
    assert (row["status"], row["attempts"], row["max_attempts"]) == ("queued", 1, 2)
    assert (row["reason"], row["message"], row["result"], row["finished_at"]) == (None, None, None, None)
    run = await worker.claim_one()
    assert run["attempt"] == 2
    await worker.finish(run)
    assert await story(born) == ["queued", "started", "failed", "retried", "started", "succeeded"]


async def test_a_cancelled_job_can_be_retried_and_forgets_the_cancel(sql, worker, job, look):
    born = await job()
    await sql.execute("select leasehold.cancel($1, 'no')", born)
    await sql.execute("select leasehold.retry($1)", born)
    assert (await look(born))["cancel_requested_at"] is None
    assert (await worker.finish(await worker.claim_one()))["job_status"] == "succeeded"


@pytest.mark.rule("P32")
async def test_a_retried_job_queues_behind_its_key(sql, worker, job, look):
    first = await job(concurrency_key="k")
    await sql.execute("select leasehold.cancel($1)", first)
    second = await job(concurrency_key="k")
    assert await sql.fetchval("select leasehold.retry($1)", first) == "deferred"
    await worker.finish(await worker.claim_job(second))
    assert (await look(first))["status"] == "queued"
    assert (await worker.claim_one())["job_id"] == first


async def test_what_has_not_failed_cannot_be_retried(sql, worker, job, refused):
    born = await job()
    async with refused("LH022", f"job {born} is queued, it cannot be retried"):
        await sql.execute("select leasehold.retry($1)", born)
    run = await worker.claim_one()
    async with refused("LH022", "is running"):
        await sql.execute("select leasehold.retry($1)", born)
    await worker.finish(run)
    async with refused("LH022", "is succeeded"):
        await sql.execute("select leasehold.retry($1)", born)


async def test_retry_after_the_crash_cap_gives_all_losses_back(sql, worker, job, hire, look, clock):
    born = await job(max_losses=1)
    await worker.claim_one()
    await clock.forward(seconds=121)
    reaper = await hire(instance="beta")
    await reaper.reap()
    assert (await look(born))["reason"] == "crash_cap"
    await sql.execute("select leasehold.retry($1)", born)
    assert ((await look(born))["status"], (await look(born))["losses"]) == ("queued", 0)


@pytest.mark.rule("P38", "P78")
async def test_cancel_hands_the_key_to_the_next(sql, fixer, job, look, sane):
    first, second = await job(concurrency_key="k"), await job(concurrency_key="k")
    await sql.execute("select leasehold.cancel($1)", first)
    assert (await look(second))["status"] == "queued"
    await sane()


@pytest.mark.rule("P40")
async def test_a_deferred_job_that_somebody_holds_is_promoted_by_the_next_claim(sql, worker, job, look, connect):
    first, second, other = await job(concurrency_key="k"), await job(concurrency_key="k"), await connect()
    run = await worker.claim_job(first)
    async with other.transaction():
        await other.execute("select from leasehold.jobs where id = $1 for update", second)
        await worker.finish(run)
        assert await worker.claim() == []
    assert [r["job_id"] for r in await worker.claim() or await worker.claim()] == [second]


@pytest.mark.rule("P31")
async def test_a_cancel_under_an_old_snapshot_does_not_strand_the_key(sql, worker, job, connect):
    first, other = await job(concurrency_key="k"), await connect()
    old = other.transaction(isolation="repeatable_read")
    await old.start()
    await other.execute("select 1 from leasehold.jobs")
    second = await job(concurrency_key="k")
    await sql.execute("select leasehold.pause_agent('fixer')")
    assert await worker.claim() == []  # has heard of the second, and found the key taken
    await sql.execute("select leasehold.resume_agent('fixer')")
    await other.execute("select leasehold.cancel($1)", first)
    await old.commit()
    assert [r["job_id"] for r in await worker.claim() or await worker.claim()] == [second]


@pytest.mark.rule("S116", "SW5", "AW38", "O22", "X19")
@pytest.mark.parametrize(
    ("to", "tells"),
    [("cancelled", "leasehold.cancel("), ("running", "claim()"), ("succeeded", "finish_run()")],
)
async def test_even_a_superuser_cannot_update_a_status_and_is_told_what_to_call(sql, fixer, job, refused, to, tells):
    born = await job()
    async with refused("LH027", f'job {born} cannot go from "queued" to "{to}" by a plain update') as refusal:
        await sql.execute("update leasehold.jobs set status = $2, finished_at = now() where id = $1", born, to)
    assert tells in refusal.error.hint


async def test_a_run_and_a_worker_cannot_be_changed_by_hand_either(sql, worker, job, refused):
    await job()
    run = await worker.claim_one()
    async with refused("LH027", "run"):
        await sql.execute("update leasehold.runs set status = 'ended', outcome = 'lost' where id = $1", run["run_id"])
    async with refused("LH027", "worker"):
        await sql.execute("update leasehold.workers set state = 'closed' where id = $1", worker.id)


@pytest.mark.rule("SW5", "AW38", "X19")
async def test_naming_an_actor_does_not_open_other_transitions(sql, fixer, job, refused):
    born = await job()
    await sql.execute("set leasehold.actor = 'cancel'")
    async with refused("LH027", "by cancel"):
        await sql.execute("update leasehold.jobs set status = 'succeeded' where id = $1", born)
