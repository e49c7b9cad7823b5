"""Asking: enqueue() and wake() by name, and what became of each ask."""


def call(function, given):
    places = ", ".join(f"{name} => ${n}" for n, name in enumerate(given, 1))
    return f"select * from leasehold.{function}({places})"


async def enqueue(sql, prompt="do it", agent="fixer", **given):
    """(job, disposition)"""
    given = {"agent": agent, "prompt": prompt} | given
    return tuple(await sql.fetchrow(call("enqueue", given), *given.values()))


async def wake(sql, agent="fixer", **given):
    """(wakeup, disposition, job, our reason)"""
    given = {"agent": agent} | given
    return tuple(await sql.fetchrow(call("wake", given), *given.values()))


async def asks(sql):
    """(disposition, job) of every ask, in order."""
    return [tuple(row) for row in await sql.fetch("select disposition, job_id from leasehold.wakeups order by id")]
