"""What runs used: counted once, exact, never poisoned by what an agent says."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


async def say(sql, run, *said, first=1, kind="usage", tokens=None):
    """What the shipper does with lines of one run: marks are places in its stdout."""
    many = len(said)
    return await sql.fetch(
        "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
        [run["run_id"]] * many, [tokens or run["run_token"]] * many, list(range(first, first + many)), [kind] * many,
        ["info"] * many, [None] * many, [None] * many, [json.dumps(each) for each in said],
    )  # fmt: skip


def used(**amounts):
    return {"provider": "acme-ai", "model": "m1", **amounts}


TOTAL = "select coalesce(sum(cost_usd), -1) from leasehold.usage"


@pytest.mark.rule("P15", "P73", "P74", "PW36", "O1", "OW21")
async def test_a_report_is_a_row_with_everything_in_it_and_a_part_of_a_cent_counts(sql, worker, job):
    born = await job(session_key="talk")
    run = await worker.claim_one()
    assert await say(sql, run, used(input_tokens=10, output_tokens=2, cached_tokens=5, cost_usd=0.004)) == []
    row = await sql.fetchrow("select * from leasehold.usage")
    assert (row["run_id"], row["job_id"], row["tenant"], row["agent"]) == (run["run_id"], born, "default", "fixer")
    assert (row["account"], row["session"], row["provider"], row["model"]) == ("fixer", "talk", "acme-ai", "m1")
    assert (row["input_tokens"], row["output_tokens"], row["cached_tokens"]) == (10, 2, 5)
    assert row["cost_usd"] == Decimal("0.004")


@pytest.mark.rule("PW36", "O7")
async def test_a_thousand_parts_of_a_cent_add_up_exactly(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await say(sql, run, *[used(cost_usd=0.0001, input_tokens=1)] * 1000)
    assert await sql.fetchval(TOTAL) == Decimal("0.1")
    assert await sql.fetchval("select cost_usd from leasehold.runs") == Decimal("0.1")


@pytest.mark.rule("PW36")
async def test_what_is_said_again_counts_once(sql, worker, job):
    await job()
    run = await worker.claim_one()
    for _ in range(3):
        await say(sql, run, used(cost_usd=1, input_tokens=5), used(cost_usd=2, input_tokens=6))
    await say(sql, run, used(cost_usd=2, input_tokens=6), used(cost_usd=4, input_tokens=1), first=2)
    assert await sql.fetchval(TOTAL) == 7
    assert tuple(await sql.fetchrow("select cost_usd, input_tokens from leasehold.runs")) == (7, 12)


async def test_a_counter_of_the_run_counts_by_what_it_has_grown(sql, worker, job):
    await job()
    run = await worker.claim_one()
    for at, tokens in enumerate((100, 100, 250, 200, 400), 1):
        await say(sql, run, used(counter="run", input_tokens=tokens, cost_usd=tokens / 100), first=at)
    assert tuple(await sql.fetchrow("select sum(input_tokens), sum(cost_usd) from leasehold.usage")) == (400, 4)
    await say(sql, run, used(counter="run", model="m2", input_tokens=7), first=10)
    assert await sql.fetchval("select input_tokens from leasehold.runs") == 407


async def test_a_counter_of_the_conversation_goes_on_in_the_next_attempt(sql, worker, job, clock):
    await job(max_attempts=3)
    run = await worker.claim_one()
    await say(sql, run, used(counter="session", input_tokens=100))
    await say(sql, run, {"id": "abc"}, kind="session", first=2)
    await say(sql, run, used(counter="session", input_tokens=150), first=3)
    await worker.fail(run)
    await clock.forward(seconds=6)
    again = await worker.claim_one()
    await say(sql, again, used(counter="session", input_tokens=170))
    rows = await sql.fetch("select run_id, sum(input_tokens) from leasehold.usage group by 1 order by 1")
    assert [tuple(row) for row in rows] == [(run["run_id"], 150), (again["run_id"], 20)]


async def test_another_conversation_is_another_counter(sql, worker, job, clock):
    await job(max_attempts=3)
    for _ in range(2):
        run = await worker.claim_one()
        await say(sql, run, used(counter="session", input_tokens=100))
        await worker.fail(run)
        await clock.forward(seconds=30)
    assert await sql.fetchval("select sum(input_tokens) from leasehold.usage") == 200


NONSENSE = [
    ({"cost_usd": -1}, "cost_usd is negative"),
    ({"cost_usd": "nan"}, "cost_usd is not a number"),
    ({"cost_usd": "NaN"}, "cost_usd is not a number"),
    ({"cost_usd": "inf"}, "cost_usd is not a number"),
    ({"cost_usd": "-Infinity"}, "cost_usd is not a number"),
    ({"cost_usd": 1e300}, "cost_usd is more than 1000000"),
    ({"cost_usd": "1e999"}, "cost_usd is more than 1000000"),
    ({"cost_usd": True}, "cost_usd is not a number"),
    ({"cost_usd": [1]}, "cost_usd is not a number"),
    ({"cost_usd": "1; drop table"}, "cost_usd is not a number"),
    ({"input_tokens": -5}, "input_tokens is negative"),
    ({"input_tokens": 1.5}, "input_tokens is not a whole number"),
    ({"output_tokens": 10**13}, "output_tokens is more than 1000000000000"),
    ({"cached_tokens": "many"}, "cached_tokens is not a number"),
    ({"counter": "week", "input_tokens": 5}, 'there is no counter "week"'),
]


@pytest.mark.rule("PW36")
async def test_nonsense_is_refused_loudly_and_poisons_no_total(sql, worker, job):
    await job()
    run = await worker.claim_one()
    for at, (said, why) in enumerate(NONSENSE, 1):
        await say(sql, run, said, first=at)
        event = await sql.fetchrow("select level, message from leasehold.events order by seq desc limit 1")
        assert (event["level"], event["message"]) == ("warning", f"not counted: {why}"), said
    assert await sql.fetchval("select count(*) from leasehold.usage") == 0
    await say(sql, run, used(cost_usd=1), first=100)
    assert await sql.fetchval("select cost_usd from leasehold.runs") == 1


async def test_what_is_sound_in_a_report_counts_beside_nonsense(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await say(sql, run, {"input_tokens": 3, "cost_usd": "NaN"})
    assert tuple(await sql.fetchrow("select input_tokens, cost_usd, unpriced from leasehold.runs")) == (3, None, 1)


@pytest.mark.rule("PW36")
async def test_what_has_no_price_is_not_free(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await say(sql, run, used(input_tokens=5))
    assert tuple(await sql.fetchrow("select cost_usd, unpriced, input_tokens from leasehold.runs")) == (None, 1, 5)
    assert tuple(await sql.fetchrow("select cost_usd, unpriced from leasehold.usage_totals")) == (None, 1)
    await say(sql, run, used(input_tokens=5, cost_usd=0), first=2)
    assert tuple(await sql.fetchrow("select cost_usd, unpriced from leasehold.usage_totals")) == (0, 1)


@pytest.mark.rule("P74")
async def test_a_report_of_nothing_makes_no_row_and_names_are_unknown_if_not_said(sql, worker, job):
    await job()
    run = await worker.claim_one()
    await say(sql, run, {}, {"input_tokens": 0, "cost_usd": 0}, {"input_tokens": 1})
    assert [tuple(row) for row in await sql.fetch("select provider, model from leasehold.usage")] == [("unknown",) * 2]


ENDS = {
    "failed": "exit_code", "cancelled": "cancelled", "timed_out": "total", "interrupted": "stopped", "lost": "worker_lost",
}  # fmt: skip


@pytest.mark.rule("OW20", "X34", "P12", "P75")
async def test_however_a_run_ends_its_cost_stays(sql, worker, job):
    for outcome, reason in ENDS.items():
        run = await worker.claim_job(await job())
        await say(sql, run, used(cost_usd=3))
        await worker.finish(run, outcome, reason)
        assert await sql.fetchval("select cost_usd from leasehold.runs where id = $1", run["run_id"]) == 3
        await sql.execute("select leasehold.cancel(id) from leasehold.jobs where finished_at is null")
    month = "agent = 'fixer' and month = '2030-01-01'"
    assert await sql.fetchval(f"select sum(cost_usd) from leasehold.usage_totals where {month}") == 15


async def test_only_who_speaks_for_the_run_is_heard(sql, worker, job):
    await job()
    run = await worker.claim_one()
    assert await say(sql, run, used(cost_usd=3), tokens=worker.token) == [(run["run_id"],)]
    await worker.finish(run)
    assert await say(sql, run, used(cost_usd=3), first=9) == [(run["run_id"],)]
    assert await sql.fetchval("select count(*) from leasehold.usage") == 0


async def test_the_usage_of_a_lost_run_arrives_late_and_once(sql, worker, job, refused):
    await job()
    run = await worker.claim_one()
    await say(sql, run, used(cost_usd=3))
    await worker.finish(run, "lost", "worker_lost")
    for _ in range(2):
        await late(sql, worker, run, used(cost_usd=3), used(cost_usd=4))
    assert await sql.fetchval("select cost_usd from leasehold.runs") == 7
    await worker.finish(run)
    async with refused("LH010"):
        await late(sql, worker, run, used(cost_usd=3))


async def test_only_the_worker_that_has_a_run_tells_beside_its_events_what_it_used(sql, worker, hire, job, refused):
    await job()
    run = await worker.claim_one()
    other = await hire(instance="beta")
    async with refused("LH011"):
        await late(sql, other, run, used(cost_usd=3))
    assert await sql.fetchval("select cost_usd from leasehold.runs") is None
    await late(sql, worker, run, used(cost_usd=3))
    assert await sql.fetchval("select cost_usd from leasehold.runs") == 3


async def late(sql, worker, run, *said):
    await sql.execute(
        "select leasehold.report_usage($1, $2, $3, $4, $5, $6)", *worker.me, run["run_id"], run["run_token"],
        list(range(1, len(said) + 1)), [json.dumps(each) for each in said],
    )  # fmt: skip


async def test_reports_at_once_about_one_conversation_and_one_budget_add_up(sql, worker, job, connect):
    for name in ("tenant", "agent"):
        await sql.execute(
            "insert into leasehold.budgets (scope, name, period, amount_usd) values ($1, $2, 'month', 1000)",
            name, {"tenant": "default", "agent": "fixer"}[name],
        )  # fmt: skip
    for _ in range(6):
        await job(session_key="talk", conflict_policy="allow")
    runs = await worker.claim(6)
    lines = [await connect() for _ in runs]

    async def talk(line, run):
        for at in range(1, 21):
            await say(line, run, used(cost_usd=0.01), used(counter="run", input_tokens=at), first=at * 2)

    await asyncio.gather(*(talk(line, run) for line, run in zip(lines, runs, strict=True)))
    assert await sql.fetchval(TOTAL) == Decimal("1.2")
    assert await sql.fetchval("select sum(input_tokens) from leasehold.usage") == 120
    spent = await sql.fetch("select spent_usd from leasehold.budgets")
    assert [row[0] for row in spent] == [Decimal("1.2")] * 2


money = st.decimals(0, 1000, places=6) | st.none()
reports = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([None, "run", "session"]), st.integers(0, 10**9), money), max_size=25
)


def counted(told):
    """The same sums in Python: [tokens, cost or None, unpriced] of each of three runs that share one conversation or not."""
    sums, highest = [[0, None, 0] for _ in range(3)], {}
    for run, counter, said, price in told:
        tokens, cost = said, price
        if counter is not None:
            of = highest.get((counter, run), (0, Decimal(0)))
            tokens, cost = max(said - of[0], 0), None if price is None else max(price - of[1], Decimal(0))
            highest[counter, run] = max(said, of[0]), max(of[1], price or 0)
        if not tokens and not cost:
            continue
        sums[run][0] += tokens
        if cost is None:
            sums[run][2] += 1
        else:
            sums[run][1] = (sums[run][1] or 0) + cost
    return sums


@pytest.mark.rule("P73", "PW36", "OW21")
async def test_whatever_is_reported_again_and_again_the_sums_are_exact(sql, worker, job):
    """Any reports of three runs, each batch sent once more, by every total that there is."""
    for scope, name in (("tenant", "default"), ("agent", "fixer")):
        await sql.execute(
            "insert into leasehold.budgets (scope, name, period, amount_usd) values ($1, $2, 'total', 1e9)", scope, name
        )
    loop = asyncio.get_running_loop()
    examples = []

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(reports)
    def collect(told):
        examples.append(told)

    await loop.run_in_executor(None, collect)
    for told in examples:
        transaction = sql.transaction()
        await transaction.start()
        for _ in range(3):
            await job()
        runs = await worker.claim(3)
        lines = [
            (runs[run], used(counter=counter, input_tokens=tokens, cost_usd=None if cost is None else str(cost)))
            for run, counter, tokens, cost in told
        ]
        for _ in range(2):
            for at, (run, said) in enumerate(lines, 1):
                await say(sql, run, said, first=at)
        found = await sql.fetch("select coalesce(input_tokens, 0), cost_usd, unpriced from leasehold.runs order by id")
        expected = counted(told)
        assert [list(row) for row in found] == expected, told
        cost = sum((each[1] or 0 for each in expected), Decimal(0))
        assert await sql.fetchval("select coalesce(sum(cost_usd), 0) from leasehold.usage_totals") == cost
        assert [row[0] for row in await sql.fetch("select spent_usd from leasehold.budgets")] == [cost] * 2
        await transaction.rollback()


SUMS = """select day, month, tenant, agent, account, provider, model, sum(runs), sum(input_tokens), sum(output_tokens),
    sum(cached_tokens), sum(cost_usd), sum(unpriced) from leasehold.usage_totals group by 1, 2, 3, 4, 5, 6, 7 order by 1, 4, 7"""


@pytest.mark.rule("X34", "X33")
async def test_totals_stay_what_they_were_when_jobs_go_and_a_later_budget_counts_them(sql, worker, job, clock):
    await worker.renew(lease=timedelta(days=400))
    for model in ("a", "a", "b"):
        born = await job()
        run = await worker.claim_job(born)
        await say(sql, run, used(cost_usd="0.1", input_tokens=3, model=model), used(output_tokens=4, model=model))
        await clock.forward(hours=9)
        await say(sql, run, used(cost_usd="0.02", cached_tokens=1, model=model), first=3)
        await worker.finish(run)
    before = await sql.fetch(SUMS)
    assert len(before) == 3
    await sql.execute("select leasehold.delete_job(1)")
    assert await sql.fetch(SUMS) == before
    for _ in range(2):
        await sql.execute("select leasehold.delete_old_jobs(null, 1)")
        await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'threads')", *worker.me)
        assert await sql.fetch(SUMS) == before
    assert await sql.fetchval("select count(*) from leasehold.usage") == 0
    assert await sql.fetchval("select count(*) from leasehold.usage_days where folded") == 3
    assert await sql.fetchval("select count(*) from leasehold.usage_days") == 3
    await sql.execute(
        "insert into leasehold.budgets (scope, name, period, amount_usd) values ('agent', 'fixer', 'month', 1)"
    )
    assert tuple(await sql.fetchrow("select spent_usd, unpriced from leasehold.budgets")) == (Decimal("0.36"), 3)
    await clock.forward(days=3)
    await sql.execute("update leasehold.retention set keep = '1 day' where what = 'usage'")
    await sql.fetch("select * from leasehold.sweep_retention($1, $2, 'threads')", *worker.me)
    assert await sql.fetch(SUMS) == []
