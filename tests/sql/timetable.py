"""Schedules as a user writes them, and the two calls that a daemon makes of them."""

from datetime import timedelta

HOUR = timedelta(hours=1)
FOR_EVER = timedelta(days=1000)
"""A lease that outlasts the leaps of these tests."""


async def insert(sql, name="tick", agent="fixer", prompt="do it", **columns):
    """The row as it was made."""
    columns = {"name": name, "agent": agent, "prompt": prompt} | columns
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return await sql.fetchrow(
        f"insert into leasehold.schedules ({', '.join(columns)}) values ({places}) returning *", *columns.values()
    )


async def read(sql, schedule):
    """The row as it is now."""
    return await sql.fetchrow("select * from leasehold.schedules where id = $1", schedule["id"])


async def look(worker, most=100):
    return await worker.sql.fetch("select * from leasehold.due_schedules($1, $2, $3)", *worker.me, most)


async def fire(worker, due, ticks=None):
    """What was done: (what, tick)."""
    rows = await worker.sql.fetch(
        "select * from leasehold.fire_schedule($1, $2, $3, $4, $5, $6)",
        *worker.me,
        due["schedule"],
        due["version"],
        due["next_at"],
        ticks,
    )
    return [(said["what"], said["tick"]) for said in rows]


async def turn(worker):
    """What a daemon does with intervals: look, fire what is due."""
    return [said for due in await look(worker) if not due["due_in"] for said in await fire(worker, due)]
