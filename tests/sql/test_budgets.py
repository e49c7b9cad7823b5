"""Budgets: what is used up starts nothing new until its period ends or it is raised; a run that passes its own is to be stopped."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sql.test_usage import say, used


@pytest.fixture
def budget(sql):
    async def make(scope, name, period, amount, **more):
        columns = "".join(f", {each}" for each in more)
        values = "".join(f", ${number}" for number in range(5, len(more) + 5))
        await sql.execute(
            f"insert into leasehold.budgets (scope, name, period, amount_usd{columns}) values ($1, $2, $3, $4{values})",
            scope, name, period, Decimal(str(amount)), *more.values(),
        )  # fmt: skip

    return make


async def holds(sql):
    return [
        tuple(row) for row in await sql.fetch("select scope, name, reason, until from leasehold.holds order by 1, 2, 3")
    ]


@pytest.mark.rule("X34")
async def test_what_is_used_up_is_held_until_the_period_ends(sql, worker, job, budget, clock):
    await budget("tenant", "default", "day", 5)
    await budget("agent", "fixer", "month", 100)
    await job()
    run = await worker.claim_one()
    await say(sql, run, used(cost_usd=4.99))
    assert await holds(sql) == []
    await say(sql, run, used(cost_usd=0.01), first=2)
    assert await holds(sql) == [("tenant", "default", "budget:day", datetime(2030, 1, 2, tzinfo=UTC))]
    assert "5 USD a day is used up" in await sql.fetchval("select message from leasehold.holds")
    await clock.forward(days=1)
    status = await sql.fetchrow("select spent_usd, left_usd, used_up from leasehold.budget_status where period = 'day'")
    assert tuple(status) == (0, 5, False)
    await say(sql, run, used(cost_usd=1), first=3)
    assert await sql.fetchval("select spent_usd from leasehold.budgets where period = 'day'") == 1
    assert await sql.fetchval("select spent_usd from leasehold.budgets where period = 'month'") == 6


async def test_raising_a_budget_lifts_the_hold_and_lowering_brings_it_back(sql, worker, job, budget):
    await budget("tenant", "default", "total", 5)
    await job()
    await say(sql, await worker.claim_one(), used(cost_usd=7))
    assert await holds(sql) == [("tenant", "default", "budget:total", None)]
    await sql.execute("update leasehold.budgets set amount_usd = 8")
    assert await holds(sql) == []
    await sql.execute("update leasehold.budgets set amount_usd = 6")
    assert len(await holds(sql)) == 1
    await sql.execute("delete from leasehold.budgets")
    assert await holds(sql) == []


@pytest.mark.rule("P75")
async def test_a_budget_made_late_counts_what_its_period_has_used(sql, worker, job, budget, clock):
    await job()
    run = await worker.claim_one()
    await say(sql, run, used(cost_usd=3))
    await clock.forward(days=1)
    await say(sql, run, used(cost_usd=4), first=2)
    await budget("agent", "fixer", "day", 4)
    await budget("agent", "fixer", "month", 100)
    assert [row[0] for row in await sql.fetch("select spent_usd from leasehold.budgets order by period")] == [4, 7]
    assert [row[:3] for row in await holds(sql)] == [("agent", "fixer", "budget:day")]


@pytest.mark.parametrize(("on_unpriced", "held"), [("ignore", 0), ("hold", 1)])
async def test_what_has_no_price_closes_a_budget_only_if_it_says_so(sql, worker, job, budget, on_unpriced, held):
    await budget("agent", "fixer", "week", 10, on_unpriced=on_unpriced)
    await job()
    await say(sql, await worker.claim_one(), used(input_tokens=10))
    assert len(await holds(sql)) == held
    assert tuple(await sql.fetchrow("select spent_usd, unpriced from leasehold.budget_status")) == (0, 1)


async def test_a_budget_that_refuses_takes_no_new_job_but_knows_the_old_ones(sql, worker, job, budget, refused):
    await budget("agent", "fixer", "month", 1, refuse=True)
    await job(idempotency_key="once")
    run = await worker.claim_one()
    await say(sql, run, used(cost_usd=1))
    async with refused("LH080", 'the budget of agent "fixer" is used up: 1 of 1 USD (month)') as error:
        await job()
    assert "2030-02-01 00:00 UTC" in error.error.hint
    again = await sql.fetchrow("select * from leasehold.enqueue('fixer', 'do it', idempotency_key => 'once')")
    assert again["disposition"] == "existing"
    await sql.execute("update leasehold.budgets set refuse = false")
    await job()


async def test_a_run_that_passes_its_own_budget_is_named_to_its_worker_and_its_cost_is_kept(sql, worker, job, look):
    await sql.execute("update leasehold.agents set budget_usd = 5")
    dear, cheap = await job(), await job(budget_usd=Decimal("0.5"))
    runs = {run["job_id"]: run for run in await worker.claim()}
    for born in (dear, cheap):
        await say(sql, runs[born], used(cost_usd=0.5))
    assert [row["what"] for row in await worker.renew(runs.values())] == ["renewed"]
    for born in (dear, cheap):
        await say(sql, runs[born], used(cost_usd=0.1), first=2)
    told = await worker.renew(runs.values())
    assert [tuple(row) for row in told[1:]] == [("budget", runs[cheap]["run_id"], "it has cost 0.6 USD")]
    await worker.finish(runs[cheap], "blocked", "budget")
    row = await look(cheap)
    assert (row["status"], row["reason"], row["attempts"]) == ("blocked", "budget", 0)
    assert await sql.fetchval("select cost_usd from leasehold.runs where job_id = $1", cheap) == Decimal("0.6")


async def test_only_an_administrator_writes_budgets_and_nobody_the_sums(sql, login, budget, refused):
    await budget("tenant", "acme", "day", 5)
    await budget("tenant", "globex", "day", 5)
    admin, producer = await login("leasehold_admin"), await login("leasehold_producer", "acme")
    assert [row["name"] for row in await producer.fetch("select name from leasehold.budget_status")] == ["acme"]
    for person, statement in (
        (producer, "update leasehold.budgets set amount_usd = 50"),
        (admin, "update leasehold.budgets set spent_usd = 0"),
        (admin, "delete from leasehold.usage"),
    ):
        async with refused("42501", hint=False):
            await person.execute(statement)
    await admin.execute("update leasehold.budgets set amount_usd = 50 where name = 'acme'")


BAD = [
    ("host", "x", "day", 5), ("tenant", " ", "day", 5), ("tenant", "x", "year", 5), ("tenant", "x", "day", 0),
    ("tenant", "x", "day", "NaN"), ("tenant", "x", "day", "Infinity"), ("tenant", "x", "day", -1),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD)
async def test_a_wrong_budget_gets_a_message_of_ours(budget, refused, row):
    async with refused("LH081", "a budget cannot be so"):
        await budget(*row)


async def park(worker, run, **said):
    return await worker.finish(run, "interrupted", "quota", result=json.dumps(said))


MOMENT = "select leasehold.read_moment($1)"


async def test_a_moment_is_read_as_programs_write_it(sql):
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    for said in (
        '"2030-01-01T12:00:00Z"',
        '"2030-01-01 14:00:00+02:00"',
        '"2030-01-01T12:00:00"',
        "1893499200",
        '"1893499200.0"',
    ):
        assert await sql.fetchval(MOMENT, said) == noon, said
    for said in (
        '"tomorrow"',
        '"infinity"',
        "-5",
        "0",
        '"2030-99-01T12:00:00Z"',
        "[]",
        "{}",
        "null",
        '"2030-01-01T12:00 Mars/Base"',
        '"2030-01-01T12:00+99:99"',
        '"2030-01-01T12:00+16"',
        "1e300",
    ):
        assert await sql.fetchval(MOMENT, said) is None, said


async def test_one_run_that_meets_its_quota_parks_the_whole_account(sql, worker, job, look, clock):
    await sql.execute("update leasehold.agents set account = 'team'")
    await sql.execute(
        "insert into leasehold.agents (name, command, account) values ('other', '{true}', 'team'), ('free', '{true}', null)"
    )
    first = await job()
    answer = await park(worker, await worker.claim_job(first), resets_at="2030-01-01T13:00:00Z")
    assert answer["job_status"] == "queued"
    row = await look(first)
    assert (row["attempts"], row["interruptions"], row["reason"]) == (0, 1, "quota")
    [(scope, name, reason, until)] = await holds(sql)
    assert (scope, name, reason, until) == ("account", "team", "quota", clock.now + timedelta(hours=1))


async def test_of_many_that_meet_the_quota_at_once_the_latest_reset_counts(sql, worker, job, connect, clock):
    for _ in range(10):
        await job()
    runs, lines = await worker.claim(10), [await connect() for _ in range(10)]
    clock.connections = [sql, *lines]
    await clock.set(clock.now)
    hours = [3, 9, 1, 5, 10, 2, 8, 7, 4, 6]

    async def meet(line, run, hour):
        said = json.dumps({"resets_at": (clock.now + timedelta(hours=hour)).isoformat()})
        await line.execute(
            "select leasehold.finish_run($1, $2, $3, $4, 'interrupted', 'quota', result => $5)",
            *worker.me, run["run_id"], run["run_token"], said,
        )  # fmt: skip

    await asyncio.gather(*(meet(*one) for one in zip(lines, runs, hours, strict=True)))
    assert [row[3] for row in await holds(sql)] == [clock.now + timedelta(hours=10)]


async def test_a_reset_does_not_open_an_account_that_somebody_holds_for_good(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await sql.execute("select leasehold.hold('account', 'fixer', 'quota')")
    await park(worker, run, resets_at="2030-01-01T13:00:00Z")
    assert await holds(sql) == [("account", "fixer", "quota", None)]


async def test_a_reset_that_nobody_can_believe_is_kept_within_bounds(sql, worker, job, clock):
    await worker.renew(lease=timedelta(days=1))
    born = await job()
    answer = await park(worker, await worker.claim_one(), resets_at="2029-01-01T13:00:00Z")
    assert await holds(sql) == []
    assert answer["retry_at"] >= clock.now + timedelta(minutes=15)
    await clock.set(answer["retry_at"])
    await park(worker, await worker.claim_job(born), resets_at="2199-01-01T13:00:00Z")
    assert (await holds(sql))[0][3] == clock.now + timedelta(days=31)


async def test_a_job_that_meets_nothing_but_limits_ends_at_last(sql, worker, job, look, clock):
    await worker.renew(lease=timedelta(days=10))
    born = await job()
    for turn in range(100):
        run = await worker.claim_job(born)
        answer = await worker.finish(run, "interrupted", ("quota", "rate_limit")[turn % 2])
        if answer["retry_at"]:
            await clock.set(answer["retry_at"])
    row = await look(born)
    assert (row["status"], row["reason"], row["attempts"], row["interruptions"]) == ("failed", "quota_cap", 0, 100)


@pytest.mark.rule("X34", "PW36")
async def test_nothing_starts_under_a_budget_that_is_used_up(sql, worker, job, budget, clock):
    await worker.renew(lease=timedelta(days=2))
    await budget("agent", "fixer", "day", 1)
    for _ in range(2):
        await job()
    await say(sql, await worker.claim_one(), used(cost_usd=1))
    assert await worker.claim() == []
    await clock.forward(days=1)
    assert len(await worker.claim()) == 1


async def test_an_account_that_is_parked_starts_nothing_and_comes_back_one_by_one(sql, worker, job, clock):
    await worker.renew(lease=timedelta(days=1))
    await sql.execute("update leasehold.agents set account = 'team'")
    await sql.execute("insert into leasehold.agents (name, command, account) values ('other', '{true}', 'team')")
    await sql.execute("insert into leasehold.agents (name, command) values ('free', '{true}')")
    first, other = await job(), await job(agent="other")
    await job(agent="free")
    runs = {run["job_id"]: run for run in await worker.claim(3)}
    for born in (first, other):
        await park(worker, runs[born], resets_at=(clock.now + timedelta(hours=1)).timestamp())
    more = await job(agent="other"), await job(agent="free")
    assert [run["job_id"] for run in await worker.claim()] == [more[1]]
    await clock.forward(hours=1)
    assert len(await worker.claim()) == 1
    await clock.forward(seconds=2)
    assert len(await worker.claim()) == 1
    await clock.forward(seconds=2)
    assert len(await worker.claim()) == 1
    assert await sql.fetchval("select max(attempts) from leasehold.jobs") == 0
