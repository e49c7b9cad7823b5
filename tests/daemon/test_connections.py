"""Connections are few, kept, and closed by whoever opened them; a mistake of the daemon's own costs one run, not the daemon."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from leasehold.db.calls import open_database
from leasehold.db.client import open_client
from leasehold.db.connect import connect_pool
from leasehold.models import Verdict

OPEN = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'leasehold%'"
EVER = "select sessions from pg_stat_database where datname = current_database()"


@pytest.mark.rule("A5", "G8")
async def test_a_pool_and_a_client_leave_no_connection_behind(sql, dsn, eventually):
    async with connect_pool(dsn, "leasehold pool", 3, None, 20.0) as pool:
        await asyncio.gather(*(pool.execute("select pg_sleep(0.2)") for _ in range(3)))
        assert await sql.fetchval(OPEN) == 3
    await eventually(sql, OPEN, expected=0)
    with pytest.raises(ZeroDivisionError):
        async with open_client(dsn):
            assert await sql.fetchval(OPEN) == 1
            _ = 1 / 0
    await eventually(sql, OPEN, expected=0)


STUMBLES = """
    create sequence public.times;
    create or replace function leasehold.listen_again() returns void language plpgsql as $$
    begin
      if nextval('public.times') = 1 then raise exception 'both wait' using errcode = '{code}'; end if;
    end $$;
    grant usage on sequence public.times to public"""


@pytest.mark.rule("GW24")
@pytest.mark.parametrize("code", ["40P01", "40001", "55P03", "57P01"])
async def test_a_call_that_met_a_deadlock_or_the_like_is_made_again(sql, dsn, code):
    await sql.execute(STUMBLES.format(code=code))
    async with open_database(dsn, "leasehold again", 1) as db:
        async with asyncio.timeout(20):
            await db.patiently(db.listen_again)
        assert db.connected
    assert await sql.fetchval("select last_value from public.times") == 2


@pytest.mark.rule("GW24")
async def test_a_connection_that_broke_in_the_middle_of_a_call_is_told_as_that_and_not_used_again(sql, dsn):
    await sql.execute(
        STUMBLES.format(code="57P01").replace(
            "raise exception", "perform pg_terminate_backend(pg_backend_pid()); raise notice"
        )
    )
    async with open_database(dsn, "leasehold broken", 1) as db:
        with pytest.raises(asyncpg.PostgresConnectionError, match="administrator command"):
            await db.listen_again()
        assert not db.connected
        await db.listen_again()
        assert db.connected


@pytest.mark.rule("PW31")
async def test_one_connection_is_enough_for_any_number_of_calls_at_once(sql, dsn, agent):
    """No call holds one connection while it waits for another: ends promote, and take no second one for it."""
    await agent("quick", "true")
    await sql.execute("""insert into leasehold.jobs (agent, prompt, concurrency_key)
        select 'quick', 'x', 'k' || g % 5 from generate_series(1, 40) g""")
    async with open_database(dsn, "leasehold one", 1) as db:
        worker = await db.register_worker("one", "host", "boot", "keeper", "1", 40, None, timedelta(minutes=2))

        async def work():
            while await sql_left():
                for claim in await db.claim(worker, 2):
                    await db.start_run(worker, claim.key, {"pid": 1})
                    await db.finish_run(worker, claim.key, Verdict("succeeded"), 0, None, {}, {})
                await db.renew(worker, [], timedelta(minutes=2))

        async def sql_left():
            async with asking:
                return await sql.fetchval("select count(*) from leasehold.jobs where finished_at is null")

        asking = asyncio.Lock()
        async with asyncio.timeout(20):
            await asyncio.gather(*(work() for _ in range(8)))
    assert await sql.fetchval("select count(*) from leasehold.runs where outcome = 'succeeded'") == 40


@pytest.mark.rule("G7", "OW12")
async def test_many_jobs_need_no_more_connections_than_one(host, sql, agent, insert, ends):
    await agent("quick", "echo done")
    async with host.daemon():
        await ends(await insert("quick"), "succeeded")
        before, ever = await sql.fetchval(OPEN), await sql.fetchval(EVER)
        for job in [await insert("quick") for _ in range(20)]:
            await ends(job, "succeeded")
        assert 1 <= await sql.fetchval(OPEN) <= before + 3
        assert await sql.fetchval(EVER) - ever <= 5, "a connection for every call"


@pytest.mark.rule("P64")
async def test_a_mistake_of_the_daemons_own_is_one_failed_run_and_the_next_one_starts(host, sql, agent, insert, ends):
    """Its mistake: an adapter that it was never told of."""
    await agent("odd", "echo never"), await agent("quick", "echo done")
    await sql.execute("""
        alter table leasehold.agents drop constraint agents_adapter;
        set session_replication_role = replica; update leasehold.agents set adapter = 'unheard' where name = 'odd'; reset session_replication_role""")
    async with host.daemon(max_runs=1):
        odd = await insert("odd")
        await ends(odd, "failed")
        await ends(await insert("quick"), "succeeded")
        await host.said("run_crashed", job_id=odd)
    assert (
        await sql.fetchval("select (reason, attempts)::text from leasehold.jobs where id = $1", odd)
        == "(daemon_error,1)"
    )
    assert await sql.fetchval("select message from leasehold.runs where job_id = $1", odd)
    assert await sql.fetchval("select count(*) from leasehold.output where job_id = $1", odd) == 0
