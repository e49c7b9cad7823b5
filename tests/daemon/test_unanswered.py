"""Under a real daemon: what nobody answers is ended in time, by whichever daemon is there."""

import json
from datetime import timedelta

import pytest

ASK = """
select leasehold.append_events(array[r.id], array[r.token], '{null}', '{permission}', '{info}', '{null}', '{May I?}', array[$2::jsonb])
  from leasehold.runs r where r.job_id = $1 and r.ended_at is null"""


@pytest.mark.rule("SW17")
async def test_nobody_answers_and_its_agent_is_told_no_in_time(host, sql, agent, insert, ends, eventually):
    await agent("asker", "sleep 300", answer_timeout=timedelta(seconds=1))
    async with host.daemon():
        job = await insert("asker")
        await ends(job, "running")
        await sql.execute(ASK, job, json.dumps({"id": "p", "tool": "bash"}))
        assert await sql.fetchval("select status from leasehold.jobs where id = $1", job) == "waiting"
        await eventually(sql, "select status from leasehold.interactions", expected="expired", within=25)
        await ends(job, "running")
        await sql.execute("update leasehold.agents set on_unanswered = 'cancel'")
        await sql.execute(ASK, job, json.dumps({"id": "q", "tool": "bash"}))
        await ends(job, "cancelled", within=30)
    rows = await sql.fetch("select answered_by, response from leasehold.interactions order by id")
    assert [(row["answered_by"], json.loads(row["response"])["decision"]) for row in rows] == [("timeout", "deny")] * 2
    assert not await sql.fetchval("select bool_or(to_deliver) from leasehold.interactions")
