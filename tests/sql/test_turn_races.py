"""Many speak at once, and runs end meanwhile: numbers have no gaps, no word is lost, one answer wins, nothing waits for ever."""

import asyncio
import random

import asyncpg
import pytest
from sql.talks import answer, asked, hears, inputs, permission, said, steer, take

pytestmark = pytest.mark.race

LOST = """
select t.id, t.state, t.outcome, t.why from leasehold.turns t
 where t.state = 'pending' and exists (select from leasehold.jobs j where j.id = t.job_id and j.finished_at is not null)
    or t.outcome = 'follow_up' and not exists (select from leasehold.jobs j where j.id = t.follow_up_job and position(t.text in j.prompt) > 0)
    or t.outcome = 'run_ended' and t.acknowledged_at is null"""


@pytest.fixture
async def talker(sql):
    return await hears(sql)


@pytest.fixture
async def worker(hire, talker):
    return await hire()


async def outcome_of(call):
    """'done', or the SQLSTATE."""
    try:
        await call
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return "done"


@pytest.mark.rule("A44", "A42", "G10")
async def test_many_who_speak_at_once_are_numbered_without_gaps(sql, worker, job, connect, sane):
    made = await job(agent="talker")
    run = await worker.claim_one()
    people = [await connect() for _ in range(12)]
    ids = await asyncio.gather(*(steer(person, made, f"word {n}") for n, person in enumerate(people)))
    again = await asyncio.gather(*(steer(person, made, "the same", "key") for person in people))
    assert len(set(ids)) == 12 and len(set(again)) == 1
    seqs = [row["seq"] for row in await sql.fetch("select seq from leasehold.turns order by seq")]
    assert seqs == list(range(1, 14))
    assert len(await inputs(worker, run)) == 13
    await sane()


@pytest.mark.rule("X28", "PW24", "PW25")
@pytest.mark.parametrize("seed", range(4))
async def test_a_word_said_while_the_run_ends_is_heard_refused_or_a_job(sql, worker, job, connect, sane, seed):
    chance = random.Random(seed)
    people, daemon = [await connect() for _ in range(6)], await connect()

    async def speak(person, made, n):
        await asyncio.sleep(chance.random() * 0.02)
        return await outcome_of(steer(person, made, f"word {n} of {made}"))

    async def end(run):
        await asyncio.sleep(chance.random() * 0.02)
        waiting = await inputs(worker, run, sql=daemon)
        await take(worker, run, *waiting[:2], sql=daemon)
        await worker.finish(run, sql=daemon)

    for _ in range(8):
        made = await job(agent="talker")
        run = await worker.claim_job(made)
        *answers, _ = await asyncio.gather(*(speak(person, made, n) for n, person in enumerate(people)), end(run))
        assert set(answers) <= {"done", "LH101"}
        rows = await sql.fetch("select state from leasehold.turns where job_id = $1", made)
        assert len(rows) == answers.count("done") and {row["state"] for row in rows} <= {"ended"}
    assert [dict(row) for row in await sql.fetch(LOST)] == []
    await sane()


@pytest.mark.rule("SW17", "X28")
@pytest.mark.parametrize("seed", range(4))
async def test_of_two_answers_a_timeout_and_the_end_of_the_run_one_wins(sql, worker, job, connect, sane, seed):
    chance = random.Random(seed)
    await sql.execute("update leasehold.agents set answer_timeout = '20 milliseconds'")
    one, two, clockwork, agent, daemon = [await connect() for _ in range(5)]
    seen = set()

    async def soon(call):
        await asyncio.sleep(chance.random() * 0.05)
        return await outcome_of(call)

    for _ in range(10):
        made = await job(agent="talker")
        run = await worker.claim_job(made)
        await said(sql, run, permission())
        number = (await asked(sql))["id"]
        first, second, *_ = await asyncio.gather(
            soon(answer(one, number, "allow")),
            soon(answer(two, number, "deny")),
            soon(clockwork.execute("select leasehold.expire_interactions($1, $2)", *worker.me)),
            soon(said(agent, run, ("withdrawn", {"id": "p1"}))),
            soon(worker.finish(run, sql=daemon)),
        )
        assert {first, second} <= {"done", "LH106", "LH107"} and (first, second) != ("done", "done")
        row = await asked(sql)
        assert row["status"] in ("answered", "expired", "withdrawn", "closed") and not row["to_deliver"]
        assert (row["status"] == "answered") == ("done" in (first, second))
        ends = await sql.fetch(
            "select kind from leasehold.events where job_id = $1 and kind like 'interaction_%' and kind <> 'interaction_opened'"
            " and (kind <> 'interaction_closed' or message = 'its run has ended')", made,
        )  # fmt: skip
        assert len(ends) == 1, ends
        seen.add(row["status"])
        await sane()
    assert len(seen) > 1, "the race was none"


async def test_agents_ask_and_humans_speak_across_jobs_without_a_deadlock(sql, worker, job, connect, sane):
    jobs = [await job(agent="talker") for _ in range(6)]
    runs = await worker.claim()
    people, agents = [await connect() for _ in range(4)], [await connect() for _ in range(2)]

    async def talk(person, chance):
        for n in range(12):
            made = chance.choice(jobs)
            await outcome_of(steer(person, made, f"word {n}"))
            open_ = await person.fetch("select id from leasehold.interactions where status = 'pending'")
            for row in open_:
                assert await outcome_of(answer(person, row["id"], "allow")) in ("done", "LH106", "LH107")

    async def ask(agent, which):
        order = runs if which else runs[::-1]
        for n in range(12):
            kinds = ["permission", "message"] * 3
            await agent.execute(
                "select leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
                [run["run_id"] for run in order], [run["run_token"] for run in order], [None] * 6, kinds, ["info"] * 6,
                [None] * 6, ["May I?"] * 6, [f'{{"id": "{which}-{n}"}}'] * 6,
            )  # fmt: skip
            for run in order:
                await take(worker, run, *await inputs(worker, run, sql=agent), sql=agent)

    await asyncio.gather(
        *(talk(person, random.Random(n)) for n, person in enumerate(people)),
        *(ask(agent, which) for which, agent in enumerate(agents)),
    )
    for row in await sql.fetch("select id from leasehold.interactions where status = 'pending'"):
        await answer(sql, row["id"], "deny")
    assert {row["status"] for row in await sql.fetch("select status from leasehold.jobs")} == {"running"}
    for run in runs:
        await worker.finish(run)
    assert [dict(row) for row in await sql.fetch(LOST)] == []
    await sane()


async def test_somebody_who_sits_in_his_transaction_stops_no_claim_and_no_other_job(sql, worker, job, connect):
    queued = await job(agent="talker", priority=9)
    sitter, other = await connect(), await job(agent="talker")
    async with sitter.transaction():
        await steer(sitter, queued)
        await sql.execute("set lock_timeout = '200ms'")
        [run] = await worker.claim()
        assert run["job_id"] == other
        await steer(sql, other)
        await said(sql, run, permission())
        await worker.renew([run])
        await worker.finish(run)
        await sql.execute("reset lock_timeout")
    [run] = await worker.claim(1)
    assert run["job_id"] == queued and len(await inputs(worker, run)) == 1
