"""Conversations through the whole system: rows, daemon, keeper, an agent that is spoken to, and its outcome."""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

import pytest
from support.chat.life import PROGRAM

pytestmark = pytest.mark.race

TESTS = Path(__file__).parents[1]


@pytest.fixture
def host(host):
    host.environment = {"PYTHONPATH": os.pathsep.join([str(TESTS / "support/chat/site"), str(TESTS)])}
    return host


@pytest.fixture
def log(tmp_path):
    return tmp_path / "heard"


@pytest.fixture(autouse=True)
async def nobody_wants_anything(sql):
    """Until these functions are there."""
    if await sql.fetchval("select to_regproc('leasehold.read_inputs')") is None:
        await sql.execute(
            "create function leasehold.read_inputs(worker bigint, token uuid, runs bigint[], again boolean)"
            " returns table (run_id bigint, kind text, id bigint, text text, data jsonb)"
            " language sql as $$ select 1::bigint, '', 1::bigint, '', '{}'::jsonb where false $$"
        )


@pytest.fixture
async def talker(agent, log, sql):
    """An agent that is spoken to."""

    async def make(**columns):
        return await agent("chat", "", adapter="claude", command=[sys.executable, str(PROGRAM), str(log)], **columns)

    return make


def heard(log):
    return [json.loads(line)["key"] for line in log.read_text().splitlines()] if log.exists() else []


async def said(sql, job):
    rows = await sql.fetch(
        "select message from leasehold.events where job_id = $1 and kind in ('message', 'progress') order by seq", job
    )
    return [row["message"] for row in rows]


async def test_a_prompt_goes_in_an_answer_comes_out_and_it_leaves(host, sql, talker, insert, ends, log):
    await talker()
    async with host.daemon():
        job = await insert("chat", "say:2 poll:a")
        await ends(job, "succeeded")
    assert heard(log) == ["init", "start", "reply:a"]
    assert await said(sql, job) == ["0", "1", "a: polled"]


@pytest.mark.parametrize("seed", range(2))
async def test_a_daemon_killed_at_any_moment_says_everything_once(host, sql, talker, insert, ends, log, seed):
    await talker()
    chance = random.Random(seed)
    polls = [f"p{number}" for number in range(8)]
    async with host.daemon():
        job = await insert("chat", " ".join(f"say:4 poll:{each} wait:0.3" for each in polls))
        await host.said("run_spawned")
    for _ in range(6):
        daemon = await host.launch()
        await host.said("daemon_ready", pid=daemon.pid)
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded")
    assert heard(log) == ["init", "start", *(f"reply:{each}" for each in polls)]
    assert await said(sql, job) == [word for each in polls for word in ("0", "1", "2", "3", f"{each}: polled")]
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
