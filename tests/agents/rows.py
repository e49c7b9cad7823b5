"""What tests of real agents ask, and ask for."""

import asyncio
import json

PROOF = "run: echo hello > proof.txt\nsay: The proof is written."
JOB = "select status, reason, message, result from leasehold.jobs where id = $1"
KINDS = "select kind from leasehold.events where job_id = $1 and run_id is not null order by seq"
SAID = "select data from leasehold.events where job_id = $1 and kind = $2 order by seq"


async def kinds(sql, job):
    return [row["kind"] for row in await sql.fetch(KINDS, job)]


async def said(sql, job, kind):
    return [json.loads(row["data"]) for row in await sql.fetch(SAID, job, kind)]


async def until(fact, what):
    """Wait for something outside of the database."""
    for _ in range(1500):
        if found := fact():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not happen: {what}")
