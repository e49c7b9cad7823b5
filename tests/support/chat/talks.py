"""What one does with conversations over SQL, for tests of the whole system."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from support.chat.life import PROGRAM

TESTS = Path(__file__).parents[2]
CHAT = {"PYTHONPATH": os.pathsep.join([str(TESTS / "support/chat/site"), str(TESTS)])}
"""Environment of a daemon that speaks the scripted agent's dialect."""


class Talks:
    """What one does with conversations over SQL."""

    def __init__(self, sql, log, eventually):
        self.sql, self.log, self.eventually = sql, log, eventually

    async def agent(self, name="chat", **columns):
        columns = {"adapter": "claude", "command": [sys.executable, str(PROGRAM), str(self.log)], **columns}
        places = ", ".join(f"${number}" for number in range(2, len(columns) + 2))
        await self.sql.execute(
            f"insert into leasehold.agents (name, {', '.join(columns)}) values ($1, {places})", name, *columns.values()
        )

    async def steer(self, job, text):
        return await self.sql.fetchval("select leasehold.steer($1, $2)", job, text)

    async def asked(self, job, what="rm"):
        """Wait until the agent has asked for it; the interaction."""
        query = "select max(id) from leasehold.interactions where job_id = $1 and external_id = $2"
        await self.eventually(self.sql, f"select ({query}) is not null", job, what, expected=True)
        return await self.sql.fetchval(query, job, what)

    async def answer(self, interaction, answer="yes"):
        await self.sql.execute("select leasehold.answer($1, $2)", interaction, answer)
        return f"answer:{interaction}"

    async def until_heard(self, key, within=30.0):
        deadline = asyncio.get_running_loop().time() + within
        while key not in self.heard():
            assert asyncio.get_running_loop().time() < deadline, f"{key} was not heard: {self.heard()}"
            await asyncio.sleep(0.02)

    async def all_told(self):
        turns = "select count(*) from leasehold.turns where acknowledged_at is null"
        answers = "select count(*) from leasehold.interactions where delivered_at is null or to_deliver"
        await self.eventually(self.sql, f"select ({turns}) + ({answers})", expected=0)

    def heard(self):
        return [json.loads(line)["key"] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    async def said(self, job):
        rows = await self.sql.fetch(
            "select message from leasehold.events where job_id = $1 and kind in ('message', 'progress') order by seq",
            job,
        )
        return [row["message"] for row in rows]

    async def ending(self, job):
        row = await self.sql.fetchrow("select outcome, reason from leasehold.runs where job_id = $1", job)
        return tuple(row)


@pytest.fixture
async def talks(host, sql, tmp_path, eventually):
    host.environment = CHAT
    return Talks(sql, tmp_path / "heard", eventually)
