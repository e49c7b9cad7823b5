"""Conversations through the whole system: rows, daemon, keeper, an agent that is spoken to, and its outcome."""

import asyncio
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from support.chat.talks import CHAT, Talks
from support.host import Host
from support.keeper import SILENT, KeeperProcess

pytestmark = pytest.mark.race

SECOND = timedelta(seconds=1)


async def test_a_prompt_goes_in_an_answer_comes_out_and_it_leaves(host, talks, insert, ends):
    await talks.agent()
    async with host.daemon():
        job = await insert("chat", "say:2 poll:a")
        await ends(job, "succeeded")
    assert talks.heard() == ["init", "start", "reply:a"]
    assert await talks.said(job) == ["0", "1", "a: polled"]


@pytest.mark.rule("X28", "A48", "S93", "S94")
async def test_what_somebody_wants_is_heard_at_once_and_then_noted(host, talks, insert, ends, eventually):
    await talks.agent()
    async with host.daemon():
        job = await insert("chat", "until:docs ask:rm say:1")
        await host.said("run_spawned")
        turn = await talks.steer(job, "docs")
        await talks.until_heard(f"turn:{turn}", within=10)
        asked = await talks.asked(job)
        await ends(job, "waiting")
        answer = await talks.answer(asked, "no")
        await ends(job, "succeeded")
    assert talks.heard() == ["init", "start", f"turn:{turn}", answer]
    assert await talks.said(job) == ["rm: deny", "0"]
    row = await talks.sql.fetchrow("select state, outcome, acknowledged_at is not null as told from leasehold.turns")
    assert tuple(row) == ("ended", "done", True)
    await talks.all_told()


@pytest.mark.rule("X28")
@pytest.mark.parametrize("seed", range(2))
async def test_a_daemon_killed_at_any_moment_says_everything_once(host, talks, insert, ends, seed):
    await talks.agent()
    chance = random.Random(seed)
    polls = [f"p{number}" for number in range(4)]
    script = " ".join(f"say:4 poll:{each} ask:a{each} wait:0.2" for each in polls)
    async with host.daemon():
        job = await insert("chat", f"{script} until:end")
        await host.said("run_spawned")
    keys = []
    for each in polls:
        daemon = await host.launch()
        await host.said("daemon_ready", pid=daemon.pid)
        keys += [f"reply:{each}", await talks.answer(await talks.asked(job, f"a{each}"))]
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        daemon.kill()
        await daemon.wait()
    turn = await talks.steer(job, "end")
    async with host.daemon():
        await ends(job, "succeeded")
    assert talks.heard() == ["init", "start", *keys, f"turn:{turn}"]
    said = [word for each in polls for word in ("0", "1", "2", "3", f"{each}: polled", f"a{each}: allow")]
    assert await talks.said(job) == said
    await talks.all_told()
    assert await talks.sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1


async def test_a_turn_that_was_heard_by_a_run_that_ended_while_no_daemon_was_there_is_no_follow_up(
    host, talks, insert, ends
):
    await talks.agent()
    async with host.daemon() as daemon:
        job = await insert("chat", "until:go wait:1")
        await talks.until_heard("start")
        turn = await talks.steer(job, "go")
        await talks.until_heard(f"turn:{turn}")
        daemon.kill()
        await daemon.wait()
    await asyncio.sleep(1.5)
    async with host.daemon():
        await ends(job, "succeeded")
    assert await talks.sql.fetchval("select count(*) from leasehold.jobs") == 1
    await talks.all_told()


@pytest.mark.rule("X28")
async def test_a_turn_that_comes_too_late_becomes_a_job(host, talks, insert, ends, eventually):
    await talks.agent()
    async with host.daemon() as daemon:
        job = await insert("chat", "say:1 wait:0.5")
        await talks.until_heard("start")
        daemon.kill()
        await daemon.wait()
    await asyncio.sleep(1)  # by now it has said that it is done; nobody has closed its stdin
    turn = await talks.steer(job, "say:2")
    async with host.daemon():
        await ends(job, "succeeded")
        await eventually(talks.sql, "select status from leasehold.jobs where id <> $1", job, expected="succeeded")
    assert await talks.sql.fetchval("select outcome from leasehold.turns") == "follow_up"
    assert f"turn:{turn}" not in talks.heard()


async def test_an_agent_at_work_on_another_prompt_does_not_linger_and_is_not_let_go(host, talks, insert, ends):
    await talks.agent(linger_timeout=SECOND / 2)
    async with host.daemon() as daemon:
        job = await insert("chat", "until:go say:1")
        await talks.until_heard("start")
        more = await talks.sql.fetchval("select leasehold.prompt($1, 'ask:x wait:2 say:2')", job)
        await talks.until_heard(f"turn:{more}")
        await talks.steer(job, "go")
        asked = await talks.asked(job, "x")
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await talks.answer(asked)
        await ends(job, "succeeded")
    assert await talks.said(job) == ["0", "x: allow", "0", "1"]
    assert await talks.ending(job) == ("succeeded", "ok")
    await talks.all_told()


async def test_a_keeper_that_hangs_for_a_while_loses_and_doubles_nothing(host, talks, insert, ends):
    await talks.agent()
    async with host.daemon():
        job = await insert("chat", "until:go poll:a")
        await talks.until_heard("start")
        for pid in host.keeper_pids():
            os.kill(pid, signal.SIGSTOP)
        turn = await talks.steer(job, "go")
        await host.said("keeper_lost", within=30)
        for pid in host.keeper_pids():
            os.kill(pid, signal.SIGCONT)
        await ends(job, "succeeded")
    assert talks.heard() == ["init", "start", f"turn:{turn}", "reply:a"]
    await talks.all_told()


async def test_a_keeper_that_cannot_speak_to_agents_fails_only_those_that_must_be_spoken_to(
    host, talks, agent, insert, ends
):
    await talks.agent()
    await agent("plain", "exit 0")
    keeper = KeeperProcess(host.directory, "auto", prefix=(sys.executable, "-c", SILENT))
    keeper.start()
    try:
        async with host.daemon():
            job = await insert("chat", "say:1", max_attempts=1)
            await ends(job, "failed")
            await ends(await insert("plain"), "succeeded")
    finally:
        keeper.close()
    assert await talks.ending(job) == ("failed", "spawn_failed")
    message = await talks.sql.fetchval(
        "select message from leasehold.events where job_id = $1 and kind = 'failed'", job
    )
    assert "restart it" in message and talks.heard() == []


@asynccontextmanager
async def far_away(postgres, template, directory):
    """A host whose server may be hurt, and a way to ask it."""
    name = await postgres.database(template)
    host = Host(directory / "far", postgres.dsn(name), "far")
    host.environment = CHAT
    try:
        yield host, lambda: asyncpg.connect(postgres.dsn(name))
    finally:
        host.clear()


@pytest.mark.rule("X28")
async def test_a_control_that_waits_while_postgres_is_away_is_heard_once_it_is_back(
    postgres, template, tmp_path, eventually
):
    async with far_away(postgres, template, tmp_path) as (host, connect):
        talks = Talks(await connect(), tmp_path / "heard", eventually)
        await talks.agent()
        async with host.daemon():
            insert = "insert into leasehold.jobs (agent, prompt) values ('chat', 'ask:rm poll:a until:go') returning id"
            job = await talks.sql.fetchval(insert)
            answer = await talks.answer(await talks.asked(job))
            postgres.stop()
            await asyncio.sleep(2)
            postgres.start()
            talks.sql = await connect()
            await talks.until_heard("reply:a")
            turn = await talks.steer(job, "go")
            await eventually(talks.sql, "select status from leasehold.jobs where id = $1", job, expected="succeeded")
            await talks.all_told()
        assert talks.heard() == ["init", "start", answer, "reply:a", f"turn:{turn}"]
        await talks.sql.close()
