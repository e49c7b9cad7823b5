"""Usage, budgets, quota and sessions with real agents: what they say becomes rows, once, and what follows from them happens."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest

COST = "select cost_usd from leasehold.runs where job_id = $1 order by id desc limit 1"
SPENDER = """
n=0; while [ $n -lt 40 ]; do n=$((n+1))
echo '{"type":"usage","input_tokens":1,"cost_usd":0.001}'
echo '{"type":"usage","counter":"run","output_tokens":'$n'}'
sleep 0.05; done
"""


def say(**words):
    return f"echo '{json.dumps(words)}'; "


@pytest.mark.race
async def test_a_daemon_that_is_killed_and_started_again_counts_nothing_twice(
    host, sql, agent, insert, ends, eventually
):
    await agent("spender", SPENDER)
    async with host.daemon() as daemon:
        job = await insert("spender")
        await eventually(sql, "select count(*) > 6 from leasehold.usage", expected=True)
        daemon.kill()
        await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded")
    run = await sql.fetchrow("select * from leasehold.runs where job_id = $1", job)
    assert (run["cost_usd"], run["input_tokens"], run["output_tokens"]) == (Decimal("0.04"), 40, 40)
    assert await sql.fetchval("select sum(cost_usd) from leasehold.usage_totals") == Decimal("0.04")


@pytest.mark.rule("SW36")
async def test_a_run_that_passes_its_own_budget_is_stopped_and_what_it_used_is_kept(host, sql, agent, insert, ends):
    await agent("dear", say(type="usage", cost_usd=2.5) + "sleep 300", budget_usd=2)
    async with host.daemon():
        job = await insert("dear", max_attempts=5)
        await ends(job, "blocked")
    assert await sql.fetchval("select reason from leasehold.jobs where id = $1", job) == "budget"
    assert await sql.fetchval(COST, job) == Decimal("2.5")


@pytest.mark.rule("OW20")
async def test_what_a_cancelled_and_a_failed_run_have_cost_is_known(host, sql, agent, insert, ends, eventually):
    await agent("slow", say(type="usage", cost_usd=1) + "sleep 300")
    await agent("bad", say(type="usage", cost_usd=2) + "exit 3")
    async with host.daemon():
        slow, bad = await insert("slow"), await insert("bad")
        await eventually(sql, COST, slow, expected=1)
        await sql.execute("select leasehold.cancel($1)", slow)
        await ends(slow, "cancelled")
        await ends(bad, "failed")
    assert [await sql.fetchval(COST, job) for job in (slow, bad)] == [1, 2]


async def test_a_quota_parks_the_account_until_it_resets_and_uses_no_attempt(
    host, sql, agent, insert, ends, eventually, tmp_path
):
    met = tmp_path / "met"
    script = (
        f'[ -e {met} ] && exit 0; touch {met}; reset=$(($(date +%s)+3)); echo \'{{"type":"result","ok":false,'
        '"reason":"quota","resets_at":\'$reset\'}\'; exit 1'
    )
    await agent("limited", script, account="team")
    await agent("other", "true", account="team")
    async with host.daemon(poll="1s"):
        job = await insert("limited")
        held = "select count(*) from leasehold.holds where scope = 'account' and name = 'team' and reason = 'quota'"
        await eventually(sql, held, expected=1)
        until = await sql.fetchval("select until from leasehold.holds")
        other = await insert("other")
        await ends(job, "succeeded")
        await ends(other, "succeeded")
    first, second = await sql.fetch("select * from leasehold.runs where job_id = $1 order by id", job)
    assert (first["outcome"], first["reason"], second["outcome"]) == ("interrupted", "quota", "succeeded")
    assert until <= await sql.fetchval("select min(claimed_at) from leasehold.runs where id > $1", first["id"])
    row = await sql.fetchrow("select attempts, interruptions from leasehold.jobs where id = $1", job)
    assert tuple(row) == (1, 1)


async def test_the_next_attempt_is_told_the_session_of_the_last(host, sql, agent, insert, ends, written):
    script = 'echo "got ${LEASEHOLD_SESSION:-none} $0"; ' + say(type="session", id="s-1") + "exit $LEASEHOLD_ATTEMPT"
    await agent(
        "talker", "", command=["sh", "-c", script, "resume={session}"], retry_backoff=timedelta(milliseconds=50)
    )
    async with host.daemon():
        job = await insert("talker", max_attempts=2)
        await ends(job, "failed")
    assert await written(job) == b"got s-1 resume=s-1\n"
    assert await sql.fetchval("select convert_from(bytes, 'UTF8') from leasehold.output order by run_id limit 1") == (
        "got none resume=\n"
    )


@pytest.mark.rule("G49")
async def test_a_run_whose_session_was_evicted_is_not_started_and_goes_on_when_that_is_forgotten(
    host, sql, agent, insert, ends, written
):
    await agent("talker", say(type="session", id="s-1") + "echo hello")
    async with host.daemon():
        await ends(await insert("talker", session_key="talk"), "succeeded")
        await sql.execute("select leasehold.evict_session('talker', 'talk')")
        job = await insert("talker", session_key="talk")
        await ends(job, "failed")
        row = await sql.fetchrow("select * from leasehold.runs where job_id = $1", job)
        assert (row["reason"], row["started_at"], row["exit_code"]) == ("session_evicted", None, None)
        assert await written(job) == b""
        await sql.execute("select leasehold.forget_session('talker', 'talk')")
        await sql.execute("select leasehold.retry($1)", job)
        await ends(job, "succeeded")
