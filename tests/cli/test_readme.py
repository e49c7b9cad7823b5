"""Every command in the README, executed, in order, beside a real daemon."""

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\S+)( agent)?\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def blocks(language, agent=""):
    return [text for kind, mark, text in BLOCKS if kind == language and mark.strip() == agent]


async def test_the_tour_works_as_written(host, sql, ends, eventually, dsn):
    async with host.daemon():
        for block in blocks("sql"):
            for statement in block.split(";\n"):
                if statement.strip():
                    await sql.execute(statement)
            if "sleeper" not in block:
                waiting = "select count(*) from leasehold.jobs where finished_at is null"
                await eventually(sql, waiting, expected=0)
        await ends(await sql.fetchval("select id from leasehold.jobs where agent = 'sleeper'"), "cancelled")
        jobs = await sql.fetch(
            "select prompt, status from leasehold.jobs where agent = 'greeter' and concurrency_key is distinct from 'issue-7' order by id"
        )
        assert [tuple(job) for job in jobs] == [(name, "succeeded") for name in ("world", "moon", "mars", "venus")]
        woken = await sql.fetch("select status from leasehold.jobs where concurrency_key = 'issue-7'")
        assert {row["status"] for row in woken} == {"succeeded"} and len(woken) in (1, 2)
        assert (
            await sql.fetchval(
                "select string_agg(convert_from(bytes, 'UTF8'), '') from leasehold.output where job_id = 1"
            )
            == "hello, world\nbye\n"
        )
        for line in "\n".join(blocks("sh")).splitlines():
            if line.startswith("leasehold "):
                await run(line, dsn, host)
        await eventually(sql, "select count(*) from leasehold.jobs where finished_at is null", expected=0)


async def run(line, dsn, host):
    words = [sys.executable, "-m", *shlex.split(line)]
    env = {"LEASEHOLD_DATABASE_URL": dsn, "LEASEHOLD_STATE_DIR": str(host.directory), "PATH": "/usr/bin:/bin"}
    process = await asyncio.create_subprocess_exec(*words, env=env, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    assert process.returncode == 0, f"{line}\n{out.decode()}\n{err.decode()}"
    assert out.strip()


@pytest.mark.parametrize(("language", "program"), [("sh", "sh"), ("python", sys.executable)])
async def test_the_example_agents_work_as_written(host, sql, agent, insert, ends, written, language, program, tmp_path):
    (source,) = blocks(language, "agent")
    assert len([line for line in source.splitlines() if line]) <= 11, "ten lines or so, or it is no example"
    script = tmp_path / "agent"
    script.write_text(source)
    await agent("example", "", command=[program, str(script)])
    async with host.daemon():
        job = await insert("example", "count these four words")
        await ends(job, "succeeded")
    assert json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job)) == {"words": 4}
    assert b"{" not in await written(job)


def test_the_first_block_is_the_two_commands():
    assert [line.split()[:2] for line in blocks("sh")[0].splitlines()] == [["make", "demo"], ["make", "test"]]


def test_every_setting_is_in_the_table():
    from leasehold.settings import Settings

    table = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in README.splitlines() if line.startswith("| `")))
    )
    assert set(Settings.model_fields) <= table
