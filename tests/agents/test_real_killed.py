"""Daemons SIGKILLed at random moments of a conversation with a real agent: nothing is lost, doubled or corrupted.

LEASEHOLD_KILLS says how many of them in each (3). The agent works on meanwhile; what it asks is answered as soon as it can be.
"""

import asyncio
import json
import os
import random

import pytest
from agents.programs import CLAUDE, CODEX_APP

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LEASEHOLD_REAL_AGENTS" not in os.environ, reason="the long part of the real agents: make test-agents"
    ),
    pytest.mark.parametrize("program", [CLAUDE, CODEX_APP], indirect=True, ids=lambda program: program.adapter),
]
KILLS = int(os.environ.get("LEASEHOLD_KILLS", "3"))
WORDS = " ".join(f"word{number}" for number in range(12))
PROMPT = f"ask: echo one >> proof.txt\nask: python3 -c 'import time; time.sleep(1)'; echo two >> proof.txt\nslowly\nsay: {WORDS}"
KINDS = (
    "select kind || coalesce(' ' || (data ->> 'status'), '') from leasehold.events where job_id = $1"
    " and kind in ('session', 'tool_call', 'permission', 'question', 'withdrawn', 'message', 'usage', 'result', 'turn') order by seq"
)
MESSAGES = "select role, content, status from leasehold.messages where job_id = $1 order by id"
USED = "select sum(input_tokens), sum(output_tokens), count(started_at) from leasehold.runs where job_id = $1"
ANSWERED = (
    "select status, answered_by is not null, delivered_at is not null from leasehold.interactions where job_id = $1"
)
OPEN = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"
NEVER = 1e9
OVER = "select finished_at is not null from leasehold.jobs where id = $1"


@pytest.fixture
def asks(real, sql):
    """Whose options allow nothing that asks."""

    async def make():
        name = await real()
        await sql.execute(
            "update leasehold.agents set command = command[1:1] where name = $1 and adapter = 'claude'", name
        )
        return name

    return make


async def see_through(host, sql, job, moments=()):
    """Answer what is asked until it is over; a daemon dies after each of these seconds and another one goes on."""
    killed, moments, now = 0, iter(moments), asyncio.get_running_loop().time
    daemon, due = await host.launch(), now() + next(moments, NEVER)
    try:
        for _ in range(3000):
            if await sql.fetchval(OVER, job):
                return killed
            for row in await sql.fetch(OPEN, job):
                await sql.execute("select leasehold.answer($1, 'allow')", row["id"])
            if now() >= due:
                daemon.kill()
                await daemon.wait()
                killed, daemon, due = killed + 1, await host.launch(), now() + next(moments, NEVER)
            await asyncio.sleep(0.02)
        raise AssertionError("it does not end")
    finally:
        daemon.kill()
        await daemon.wait()


async def told(sql, job, repository):
    """All that has no time in it."""
    proof = repository / "proof.txt"
    text = proof.read_text()
    proof.unlink()
    facts = [[tuple(row) for row in await sql.fetch(query, job)] for query in (KINDS, MESSAGES, USED, ANSWERED)]
    row = await sql.fetchrow("select status, reason, result ->> 'text' from leasehold.jobs where id = $1", job)
    return text, *facts, tuple(row)


async def test_daemons_that_are_killed_at_any_moment_of_a_conversation_change_nothing_of_it(
    host, sql, asks, insert, repository
):
    name, chance, killed = await asks(), random.Random(), 0
    first = await insert(name, PROMPT)
    begin = asyncio.get_running_loop().time()
    await see_through(host, sql, first)
    lasts = asyncio.get_running_loop().time() - begin
    undisturbed = await told(sql, first, repository)
    assert (undisturbed[0], undisturbed[-1]) == ("one\ntwo\n", ("succeeded", undisturbed[-1][1], WORDS))
    while killed < KILLS:
        job = await insert(name, PROMPT)
        killed += await see_through(
            host, sql, job, [chance.uniform(0, lasts / 2) for _ in range(min(5, KILLS - killed))]
        )
        assert await told(sql, job, repository) == undisturbed
    print(json.dumps({"killed": killed}))
