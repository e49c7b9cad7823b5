"""Time travel: the database's clock steps, at once and for all sessions, as after a wrong date or a late NTP.

`leasehold.clock()` is the schema's only source of time, so replacing that one function in a test's own database steps
everything. (A frozen clock for one session, as tests/sql uses it, is the setting `leasehold.now`.)
"""

STEPPED = """create or replace function leasehold.clock() returns timestamptz language plpgsql stable as $$
begin
  return pg_catalog.clock_timestamp() + interval '{seconds} seconds';
end $$"""


async def step_clock(sql, seconds):
    """From now on the database's clock is `seconds` beside the real one."""
    await sql.execute(STEPPED.format(seconds=float(seconds)))
