"""A key that another transaction takes at the very moment in which it is looked for."""

import asyncio

import pytest

SLOWLY = """
create or replace function leasehold.key_lock(tenant text, key text) returns bigint language plpgsql as $$
begin
  perform pg_advisory_lock_shared(42);          -- whoever holds 42 keeps us here, just before the key's lock
  perform pg_advisory_unlock_shared(42);
  return hashtextextended(tenant || e'\\x1f' || key, 1);
end $$
"""


@pytest.mark.rule("P30")
async def test_a_key_taken_between_our_look_and_our_lock_defers_us(sql, fixer, job, look, connect, eventually, sane):
    await sql.execute(SLOWLY)
    first, second = await connect(), await connect()
    taking = first.transaction()
    await taking.start()
    await job(first, concurrency_key="k")
    await sql.execute("select pg_advisory_lock(42)")
    waiting = asyncio.create_task(job(second, concurrency_key="k"))
    await eventually(sql, "select count(*) from pg_locks where locktype = 'advisory' and not granted", expected=1)
    await taking.commit()
    await sql.execute("select pg_advisory_unlock(42)")
    assert (await look(await waiting))["status"] == "deferred"
    await sane()
