"""Many askers at once on real connections: no ask is lost, none waits, one job of a key at a time, promoted exactly once."""

import asyncio
import json
import random

import asyncpg
import pytest
from sql.crowds import drained
from sql.wakes import asks, enqueue, wake

pytestmark = pytest.mark.race

LOST = """
select w.id, w.disposition, w.job_id from leasehold.wakeups w left join leasehold.jobs j on j.id = w.job_id
 where (j.id is null or not j.context ? ('ask' || (w.payload ->> 'n')))"""
TWICE = """
select e.job_id from leasehold.events e where e.kind = 'promoted' group by e.job_id
having count(*) > 1 + (select count(*) from leasehold.events r where r.job_id = e.job_id and r.kind = 'retried')"""
WATCH = """
create table public.overlaps (job bigint, other bigint, key text);
create function public.watch_keys() returns trigger language plpgsql security definer as $$
begin
  insert into public.overlaps
  select new.job_id, j.id, k.concurrency_key
    from leasehold.jobs k
    join leasehold.jobs j on j.tenant = k.tenant and j.concurrency_key = k.concurrency_key and j.conflict_policy <> 'allow' and j.id <> k.id
    join leasehold.runs r on r.job_id = j.id and r.ended_at is null
   where k.id = new.job_id and k.conflict_policy <> 'allow';
  return null;
end $$;
create trigger watch_keys after insert on leasehold.runs for each row execute function public.watch_keys();
"""


def ask(n, **more):
    return {"context": json.dumps({f"ask{n}": n}), "payload": json.dumps({"n": n})} | more


@pytest.mark.rule("PW23", "PW24", "X28")
async def test_many_wakes_at_once_are_one_job_that_knows_them_all(sql, fixer, connect, hire, sane):
    people = [await connect() for _ in range(24)]
    answers = await asyncio.gather(*(wake(p, key="k", **ask(n)) for n, p in enumerate(people)))
    assert len({wakeup for wakeup, *_ in answers}) == 24
    worker = await hire()
    [run] = await worker.claim()
    assert await sql.fetch(LOST) == []
    job = await sql.fetchrow("select * from leasehold.jobs where id = $1", run["job_id"])
    assert (job["coalesced"], {f"ask{n}" for n in range(24)} - json.loads(job["context"]).keys()) == (23, set())
    await worker.finish(run)
    assert await worker.claim() == []
    await sane()


@pytest.mark.rule("P43", "PW25", "PW30")
async def test_many_wakes_at_once_while_it_runs_are_exactly_one_more_run(sql, fixer, connect, hire, sane):
    worker = await hire()
    await wake(sql, key="k", **ask("first"))
    first = await worker.claim_one()
    people = [await connect() for _ in range(24)]
    await asyncio.gather(*(wake(p, key="k", **ask(n)) for n, p in enumerate(people)))
    assert await worker.claim() == []  # and brought together what had been kept apart
    assert await sql.fetchval("select count(*) from leasehold.jobs where status = 'deferred'") == 1
    await worker.finish(first)
    [run] = await worker.claim()
    await worker.finish(run)
    assert await worker.claim() == []
    assert await sql.fetch(LOST) == []
    assert await sql.fetchval("select count(*) from leasehold.runs") == 2
    await sane()


@pytest.mark.rule("PW24", "PW31")
async def test_nobody_waits_for_an_asker_who_sits_in_his_transaction(sql, fixer, connect, hire, sane):
    sitter, worker = await connect(), await hire()
    for status in ("queued", "running"):
        await wake(sql, key="k", **ask(f"{status}0"))
        runs = await worker.claim() if status == "running" else []
        sitting = sitter.transaction()
        await sitting.start()
        await wake(sitter, key="k", **ask(f"{status}1"))  # it holds the job's row, or a follow-up that nobody sees
        await sql.execute("set lock_timeout = '50ms'")
        for n in range(2, 5):
            assert (await wake(sql, key="k", **ask(f"{status}{n}")))[1] in ("deferred", "coalesced")
        await worker.claim(9)  # it hears of what arrived, and can neither start nor merge what is held
        await sql.execute("reset lock_timeout")
        await sitting.commit()
        for run in runs:
            await worker.finish(run)
        made = 0
        while runs := await worker.claim():
            for run in runs:
                await worker.finish(run)
            made += 1
        assert made == 1
    assert await sql.fetch(LOST) == []
    await sane()


@pytest.mark.rule("P43", "PW30")
async def test_follow_ups_kept_apart_by_an_open_transaction_are_one_run_in_the_end(sql, fixer, connect, hire, sane):
    sitter, worker = await connect(), await hire()
    await wake(sql, key="k", **ask(0))
    run = await worker.claim_one()
    _, _, follow, _ = await wake(sql, key="k", **ask(1))
    sitting = sitter.transaction()
    await sitting.start()
    assert (await wake(sitter, key="k", **ask(2)))[1:3] == ("coalesced", follow)
    assert (await wake(sql, key="k", **ask(3)))[1] == "deferred"
    assert await worker.claim() == []  # has heard of the second, and could not merge it
    await sitting.commit()
    await worker.finish(run)
    [run] = await worker.claim()
    await worker.finish(run)
    assert (run["job_id"], await worker.claim()) == (follow, [])
    assert await sql.fetch(LOST) == []
    await sane()


async def test_who_was_refused_because_of_a_follow_up_stays_refused_when_that_is_merged(sql, fixer, connect, hire):
    sitter, worker = await connect(), await hire()
    _, _, first, _ = await wake(sql, key="k")
    sitting = sitter.transaction()
    await sitting.start()
    await wake(sitter, key="k")
    _, _, follow, _ = await wake(sql, key="k")
    await sitting.commit()
    await sql.execute("select leasehold.pause_agent('fixer')")
    refused = [await wake(sql, key="k", conflict_policy=policy) for policy in ("reject", "return_existing")]
    assert [answer[1] for answer in refused] == ["rejected", "existing"]
    await sql.execute("update leasehold.wakeups set job_id = $1 where disposition in ('rejected', 'existing')", follow)
    await sql.execute("select leasehold.resume_agent('fixer')")
    await worker.claim()
    assert [how for how, _ in await asks(sql)] == ["accepted", "coalesced", "coalesced", "rejected", "existing"]
    assert [job for _, job in await asks(sql)] == [first, first, first, follow, first]


async def test_an_asker_who_changes_his_mind_takes_nothing_with_him(sql, fixer, connect, hire, sane):
    sitter, worker = await connect(), await hire()
    _, _, job, _ = await wake(sql, key="k", **ask(0))
    sitting = sitter.transaction()
    await sitting.start()
    assert (await wake(sitter, key="k", **ask(1)))[1:3] == ("coalesced", job)
    assert (await wake(sql, key="k", **ask(2)))[1] == "deferred"
    await sitting.rollback()
    await worker.claim(1)
    context = json.loads(await sql.fetchval("select context from leasehold.jobs where id = $1", job))
    assert ("ask2" in context, "ask1" in context) == (True, False)
    await sane()


@pytest.mark.rule("PW22", "PW23")
async def test_the_same_ask_from_many_places_at_once_is_one_ask(sql, fixer, connect, sane):
    people = [await connect() for _ in range(16)]
    answers = await asyncio.gather(*(wake(p, key="k", idempotency_key="i") for p in people))
    assert len(set(answers)) == 1
    same = {"concurrency_key": "k", "idempotency_key": "j", "conflict_policy": "coalesce"}
    joined = await asyncio.gather(*(enqueue(p, **same) for p in people))
    assert sorted(how for _, how in joined) == ["coalesced", *["existing"] * 15]
    assert len({job for job, _ in joined}) == 1
    assert await sql.fetchval("select array_agg(coalesced) from leasehold.jobs") == [1]
    await sane()


@pytest.mark.rule("S69")
async def test_return_existing_from_many_places_makes_one_job(sql, fixer, connect, sane):
    people = [await connect() for _ in range(16)]

    async def one(person):
        while True:
            try:
                return await enqueue(person, concurrency_key="k", conflict_policy="return_existing")
            except asyncpg.SerializationError:
                await asyncio.sleep(0.005)

    answers = await asyncio.gather(*map(one, people))
    assert sorted(how for _, how in answers) == ["accepted", *["existing"] * 15]
    assert len({job for job, _ in answers}) == 1
    await sane()


@pytest.mark.rule("P30", "P38", "P92", "PW23", "PW24", "PW29", "PW31", "X28")
async def test_no_ask_is_lost_whatever_else_happens(sql, connect, hire, sane):
    """Askers with every policy, runners, cancels of what waits, pauses; then everything is done, and every ask is in a job."""
    await sql.execute(WATCH)
    await sql.execute("insert into leasehold.agents (name, command) values ('a', '{true}'), ('b', '{true}')")
    chance, over, stop = random.Random(7), asyncio.Event(), asyncio.get_running_loop().time() + 4
    numbers = iter(range(10**6))

    async def asker():
        person = await connect()
        while asyncio.get_running_loop().time() < stop:
            n = next(numbers)
            policy = chance.choice(["coalesce"] * 6 + ["defer", "allow", "reject", "return_existing"])
            try:
                async with person.transaction():
                    await wake(person, chance.choice("ab"), **ask(n, key=chance.choice("kl"), conflict_policy=policy))
                    await asyncio.sleep(chance.choice([0, 0, 0, 0.02]))
            except asyncpg.SerializationError as error:
                assert "is being taken" in str(error), error
            await asyncio.sleep(0.01)

    async def runner(number):
        claims, ends = await connect(), await connect()
        worker = await hire(claims, instance=f"w{number}")
        while not over.is_set():
            for run in await worker.claim(3):
                await asyncio.sleep(chance.random() * 0.02)
                await worker.finish(
                    run, *chance.choice([("succeeded",), ("failed", "exit_code"), ("interrupted", "stopped")]), sql=ends
                )
            await asyncio.sleep(0.005)

    async def meddler():
        person = await connect()
        while not over.is_set():
            await person.execute("select leasehold.pause_agent('b')")
            if found := await person.fetchval(
                "select id from leasehold.jobs where finished_at is null order by random() limit 1"
            ):
                try:
                    await person.execute("select leasehold.cancel($1)", found)
                except asyncpg.PostgresError as error:
                    assert error.sqlstate == "LH021"
            await asyncio.sleep(0.03)
            await person.execute("select leasehold.resume_agent('b')")
            await asyncio.sleep(0.03)

    tasks = [asyncio.create_task(part) for part in (*(runner(n) for n in range(3)), meddler())]
    await asyncio.gather(*(asker() for _ in range(8)))
    await drained(sql, tasks)
    over.set()
    await asyncio.gather(*tasks)
    made = "disposition not in ('rejected', 'existing')"
    assert await sql.fetch(f"{LOST} and {made}") == [], "these have been lost"
    assert await sql.fetch("select * from public.overlaps") == []
    assert await sql.fetch(TWICE) == []
    assert await sql.fetchval("select count(*) from leasehold.wakeups where disposition = 'coalesced'") > 20
    await sane()
