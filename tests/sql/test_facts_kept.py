"""Small facts that rows keep: times, names, leases, pauses, who asked; and what is never stored as something else."""

import asyncpg
import pytest
from sql.people import LEASE


@pytest.mark.rule("S17")
async def test_every_change_of_a_job_moves_its_time(sql, worker, job, look, clock):
    born, run = await job(max_attempts=2), None
    steps = [
        worker.claim_one,
        lambda: worker.fail(run),
        lambda: worker.claim_job(born),
        lambda: sql.execute("select leasehold.cancel($1)", born),
        lambda: worker.finish(run, "cancelled", "cancelled"),
        lambda: sql.execute("select leasehold.retry($1)", born),
        lambda: sql.execute("select leasehold.cancel($1)", born),
    ]
    for number, step in enumerate(steps):
        await clock.forward(seconds=10)
        answer = await step()
        run = answer if number in (0, 2) else run
        row = await look(born)
        assert row["created_at"] < row["updated_at"] == clock.now, number


@pytest.mark.rule("S77")
async def test_a_jobs_start_is_that_of_its_first_run(worker, job, look, clock):
    born = await job()
    began, run = clock.now, await worker.claim_one()
    await worker.finish(run, "interrupted", "stopped")
    await clock.forward(seconds=30)
    await worker.claim_one()
    assert (await look(born))["started_at"] == began


@pytest.mark.rule("A15", "A75", "G12", "G26")
async def test_each_life_of_a_daemon_has_a_row_of_its_own_with_what_it_said(sql, hire, clock):
    first = await hire(instance="alpha", keeper="k1", boot="b1", queues=["slow"], capacity=7)
    born = clock.now
    await clock.forward(seconds=5)
    second = await hire(instance="alpha", keeper="k1", boot="b1")
    assert second.id > first.id and second.token != first.token
    row = await sql.fetchrow("select * from leasehold.workers where id = $1", first.id)
    said = (
        "instance",
        "host_id",
        "boot_id",
        "keeper_id",
        "version",
        "capacity",
        "queues",
        "lease",
        "started_at",
        "state",
    )
    assert [row[name] for name in said] == ["alpha", "host", "b1", "k1", "0.1", 7, ["slow"], LEASE, born, "alive"]


@pytest.mark.rule("P76", "P91", "PW15", "PW16")
async def test_a_pause_that_comes_during_a_run_is_still_there_after_it(sql, worker, job):
    """Whether an agent is busy is counted, never written into its status."""
    status, busy = "select status from leasehold.agents", "select sum(running) from leasehold.queue_stats"
    await job(), await job()
    run = await worker.claim_one()
    assert (await sql.fetchval(status), await sql.fetchval(busy)) == ("enabled", 1)
    await sql.execute("select leasehold.pause_agent('fixer')")
    await worker.start(run)
    await worker.fail(run)
    assert (await sql.fetchval(status), await sql.fetchval(busy)) == ("paused", 0)
    assert await worker.claim() == []


@pytest.mark.rule("PW8")
async def test_the_reason_of_a_cancel_outlives_whatever_its_process_ends_with(sql, worker, job, look):
    born = await job()
    run = await worker.claim_one()
    await sql.execute("select leasehold.cancel($1, 'changed my mind')", born)
    await worker.fail(run, message="terminated by something odd")
    row = await look(born)
    assert (row["status"], row["cancel_requested_reason"], row["cancel_requested_by"]) == (
        "cancelled", "changed my mind", await sql.fetchval("select session_user"),
    )  # fmt: skip


@pytest.mark.rule("A43", "X5")
async def test_the_order_of_keys_does_not_make_another_request(sql, fixer):
    ask = "select disposition from leasehold.enqueue('fixer', 'p', payload => $1, idempotency_key => 'k')"
    said = [await sql.fetchval(ask, text) for text in ('{"a": 1, "b": {"c": 2, "d": 3}}', '{"b":{"d":3,"c":2},"a":1}')]
    assert said == ["accepted", "existing"]


@pytest.mark.rule("PW26", "P36")
async def test_two_agents_cannot_share_a_name(sql, fixer):
    for name in ("fixer", " FIXER "):
        with pytest.raises(asyncpg.UniqueViolationError):
            await sql.execute("insert into leasehold.agents (name, command) values ($1, '{true}')", name)


@pytest.mark.rule("G14", "GW14")
async def test_a_lease_is_written_in_one_place(sql, worker, job, clock):
    places = await sql.fetch("""
        select table_name, column_name from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
         where table_schema = 'leasehold' and table_type = 'BASE TABLE' and column_name ~ '^lease' order by 2""")
    assert [tuple(row) for row in places] == [("workers", "lease"), ("workers", "lease_expires_at")]
    await job()
    run = await worker.claim_one()
    await clock.forward(seconds=60)
    assert [row["what"] for row in await worker.renew([run])] == ["renewed"]
    assert await sql.fetchval("select lease_expires_at from leasehold.workers") == clock.now + LEASE


@pytest.mark.rule("GW22")
async def test_a_json_null_is_stored_as_no_value(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await worker.sql.execute(
        "select leasehold.append_events(array[$1::bigint], array[$2::uuid], '{null}', '{m}', '{info}', '{null}', '{null}', '{\"null\"}')",
        run["run_id"], run["run_token"],
    )  # fmt: skip
    assert await sql.fetchval("select count(*) from leasehold.events where data = 'null'") == 0
    await worker.finish(run, result="null")
    assert await sql.fetchval("select result is null from leasehold.jobs")
    assert await sql.fetchval("select result is null from leasehold.runs")
