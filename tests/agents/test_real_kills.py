"""The daemon is killed at random moments of real conversations: at work, asking, in the middle of a word. Nothing is lost, doubled or spoilt.

LEASEHOLD_KILLS says how often, LEASEHOLD_SEED with which dice: `LEASEHOLD_KILLS=50 make test-agents ARGS="-k random_moments"`.
"""

import asyncio
import json
import os
import random

import pytest
from agents.programs import CLAUDE, CODEX_APP

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        "LEASEHOLD_REAL_AGENTS" not in os.environ, reason="the long part of the real agents: make test-agents"
    ),
    pytest.mark.parametrize("program", [CODEX_APP, CLAUDE], indirect=True, ids=lambda program: program.adapter),
]
KILLS = int(os.environ.get("LEASEHOLD_KILLS", "6"))
SEED = os.environ.get("LEASEHOLD_SEED")
WORDS = " ".join(f"word{number}" for number in range(12))
SCRIPT = f"ask: echo one >> proof.txt; sleep 1\nask: echo two >> proof.txt\nslowly\nsay: {WORDS}"
MOST, PATIENCE = 5, 180
"""Kills of one conversation, so that it gets somewhere on a busy machine, too; seconds it may take."""
EVENTS = """
select kind, message from leasehold.events
 where job_id = $1 and kind = any (array['session', 'permission', 'withdrawn', 'tool_call', 'message', 'result']) order by seq"""
USED = """
select count(distinct u.run_id), sum(u.output_tokens)
  from leasehold.usage u join leasehold.runs r on r.id = u.run_id where r.job_id = $1"""
SAID = "select role, content, status from leasehold.messages where job_id = $1 order by id"
ASKED = "select status, external_id from leasehold.interactions where job_id = $1 order by id"


async def answer(sql, job):
    """What a patient human does, until the job is over."""
    while await sql.fetchval("select status from leasehold.jobs where id = $1", job) != "succeeded":
        pending = "select id from leasehold.interactions where job_id = $1 and status = 'pending'"
        for row in await sql.fetch(pending, job):
            await asyncio.sleep(0.3)
            await sql.fetchval("select leasehold.answer($1, 'allow')", row["id"])
        await asyncio.sleep(0.05)


async def tale(sql, job, proof):
    """All that must be the same, however often the daemon died. (Not how many runs there were: one may have died before it began.)"""
    events = [(row["kind"], row["message"]) for row in await sql.fetch(EVENTS, job)]
    said = [tuple(row) for row in await sql.fetch(SAID, job)]
    asked = [row["status"] for row in await sql.fetch(ASKED, job)]
    result = json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job))["text"]
    used = tuple(await sql.fetchrow(USED, job))
    return {
        "events": events, "said": said, "asked": asked, "result": result, "used": used,
        "file": proof.read_text(),
    }  # fmt: skip


async def bother(host, human, dice, most):
    """Until the human is content: daemons that die at random moments, so many of them. Answers how many have."""
    kills = 0
    while not human.done():
        async with host.daemon() as daemon:
            await asyncio.wait([human], timeout=dice.uniform(0, 3) if kills < most else None)
            if not human.done():
                daemon.kill()
                kills += 1
    await human
    return kills


async def test_a_daemon_that_is_killed_at_random_moments_changes_nothing(host, sql, real, insert, program, repository):
    name, proof = await real(options=program.asking), repository / "proof.txt"
    seed = SEED or str(random.randrange(1 << 32))
    dice, kills, expected = random.Random(seed), 0, None
    while expected is None or kills < KILLS:
        job = await insert(name, SCRIPT)
        human = asyncio.create_task(answer(sql, job))
        async with asyncio.timeout(PATIENCE):
            kills += await bother(host, human, dice, 0 if expected is None else MOST)
        told = await tale(sql, job, proof)
        expected = expected or told
        assert told == expected, f"after {kills} kills with LEASEHOLD_SEED={seed}"
        assert told["said"] == [("user", SCRIPT, "completed"), ("assistant", WORDS, "completed")]
        assert told["file"] == "one\ntwo\n"
        proof.unlink()
        print(f"{kills} kills with LEASEHOLD_SEED={seed}")
