"""Limits of every kind, kept exactly; fairness between tenants and inside them; ageing; and nothing that is parked is forgotten."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest
from sql.backlog import touched
from sql.crowds import drained

LIMITS = {
    "agent": "update leasehold.agents set max_running = {n} where name = 'fixer'",
    "tenant": "insert into leasehold.tenants (name, max_running) values ('acme', {n}) on conflict (name) do update set max_running = {n}",
    "queue": "insert into leasehold.queues (name, max_running) values ('slow', {n}) on conflict (name) do update set max_running = {n}",
    "repository": """insert into leasehold.repositories (tenant, name, max_running) values ('acme', 'site', {n})
        on conflict (tenant, name) do update set max_running = {n}""",
    "host": "insert into leasehold.hosts (host_id, max_running) values ('host', {n}) on conflict (host_id) do update set max_running = {n}",
    "all": "select leasehold.limit_all({n})",
}
COLUMNS = {"tenant": "acme", "queue": "slow", "repository": "site"}


@pytest.mark.rule("P45", "PW46", "SW34", "X11")
@pytest.mark.parametrize("what", LIMITS)
async def test_every_limit_is_kept_and_room_is_used_at_once(sql, worker, hire, job, sane, what):
    await sql.execute(LIMITS[what].format(n=2))
    for _ in range(5):
        await job(**COLUMNS)
    runs = await worker.claim()
    other = await hire(instance="beta")
    assert len(runs) == 2
    assert await other.claim() == []
    await sane()
    await worker.finish(runs[0])
    assert len(await other.claim()) == 1
    assert await other.claim() == []
    await sql.execute(LIMITS[what].format(n=3))
    assert len(await other.claim()) == 1
    await sane()
    await sql.execute(LIMITS[what].format(n="null"))
    assert len(await other.claim()) == 1
    await sane()


@pytest.mark.parametrize("what", LIMITS)
async def test_why_names_the_limit_and_the_statement_that_changes_it(sql, worker, job, what):
    await sql.execute(LIMITS[what].format(n=1))
    await job(**COLUMNS)
    born = await job(**COLUMNS)
    await worker.claim()
    said = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", born)]
    [line] = [line for line in said if "max_running" in line]
    assert "(1 live run of max_running 1): " in line
    await sql.execute(line.partition(": ")[2])
    assert len(await worker.claim()) == 1


async def test_a_repository_of_one_tenant_is_not_that_of_another(sql, worker, job):
    await sql.execute(LIMITS["repository"].format(n=1))
    for tenant in ("acme", "acme", "globex", "globex"):
        await job(tenant=tenant, repository="site")
    assert len(await worker.claim()) == 3


async def test_a_host_at_its_limit_leaves_the_work_to_others(sql, worker, job, clock):
    await sql.execute(LIMITS["host"].format(n=1))
    await job()
    await job()
    [run] = await worker.claim()
    assert await sql.fetchval("select host_id from leasehold.runs where id = $1", run["run_id"]) == "host"
    other = await sql.fetchrow(
        "select * from leasehold.register_worker('beta', 'host-2', 'b', 'k', '0', 9, null, '2 minutes')"
    )
    assert len(await sql.fetch("select * from leasehold.claim($1, $2, 9)", *other)) == 1


@pytest.mark.rule("SW34")
async def test_a_tenant_gains_nothing_by_many_lanes(sql, worker):
    await sql.execute("""
        insert into leasehold.jobs (tenant, agent, prompt, queue)
        select 'wide', 'fixer', 'x', 'q' || g % 20 from generate_series(1, 200) g;
        insert into leasehold.jobs (tenant, agent, prompt) select 'narrow', 'fixer', 'x' from generate_series(1, 100) g""")
    for _ in range(10):
        await worker.claim(6)
    assert dict(await sql.fetch("select tenant, count(*) from leasehold.runs group by 1")) == {"wide": 30, "narrow": 30}
    lanes = [
        row[0] for row in await sql.fetch("select count(*) from leasehold.runs where tenant = 'wide' group by queue")
    ]
    assert len(lanes) == 20 and max(lanes) == 2


@pytest.mark.rule("SW34", "X11")
async def test_without_ageing_priority_is_strict_and_with_it_waiting_counts(sql, worker, job, clock):
    await sql.execute("insert into leasehold.queues (name, ageing) values ('ageing', '1 minute')")
    first = {}
    for queue in ("default", "ageing"):
        old = await job(queue=queue, run_at=clock.now - timedelta(minutes=10))
        first[queue] = [await job(queue=queue, priority=5), old, await job(queue=queue, priority=20)]
    order = {queue: [] for queue in first}
    for _ in range(6):
        run = await worker.claim_one()
        queue = await sql.fetchval("select queue from leasehold.jobs where id = $1", run["job_id"])
        order[queue].append(run["job_id"])
    (five, old, twenty), strict = first["ageing"], first["default"]
    assert order["ageing"] == [twenty, old, five]
    assert order["default"] == [strict[2], strict[0], strict[1]]


async def test_a_changed_ageing_counts_for_what_waits_already(sql, worker, job, clock):
    new, old = await job(priority=5), await job(run_at=clock.now - timedelta(minutes=10))
    await sql.execute("insert into leasehold.queues (name, ageing) values ('default', '1 minute')")
    assert (await worker.claim_one())["job_id"] == old
    assert (await worker.claim_one())["job_id"] == new


async def test_what_is_parked_costs_a_claim_nothing(sql, worker, job):
    """Five hundred tenants at their limit and five hundred lanes of a paused agent: the claim does not look at them again."""
    await sql.execute("""
        insert into leasehold.agents (name, command, status) values ('idle', '{true}', 'paused');
        insert into leasehold.tenants (name, max_running) select 'full' || g, 0 from generate_series(1, 500) g;
        insert into leasehold.jobs (tenant, agent, prompt) select 'full' || g, 'fixer', 'x' from generate_series(1, 500) g;
        insert into leasehold.jobs (tenant, agent, prompt) select 't' || g, 'idle', 'x' from generate_series(1, 500) g""")
    assert await worker.claim() == []
    await job()
    runs, read = await touched(sql, "select * from leasehold.claim($1, $2, 8)", *worker.me)
    assert len(runs) == 1
    assert sum(read["lanes"]) + sum(read["shares"]) < 20, read
    await sql.execute("select leasehold.resume_agent('idle')")
    assert len(await worker.claim(1000)) == 500
    await sql.execute("update leasehold.tenants set max_running = 1")
    assert len(await worker.claim(1000)) == 500


async def test_nothing_parked_is_forgotten_when_limits_move_in_open_transactions(sql, worker, job, connect, sane):
    """A run ends in a transaction that began before the limit was there: its note comes all the same."""
    for _ in range(3):
        await job(tenant="acme")
    [run] = await worker.claim(1)
    other = await connect()
    async with other.transaction():
        await worker.finish(run, sql=other)
        await sql.execute(LIMITS["tenant"].format(n=1))
        assert await worker.claim() == []
        await sane()
    await sane()
    assert len(await worker.claim()) == 1


async def test_an_agent_that_changes_its_account_leaves_the_hold_of_the_old_one(sql, worker, job, sane):
    await job()
    await sql.execute("select leasehold.hold('account', 'fixer', 'quota')")
    assert await worker.claim() == []
    await sql.execute("update leasehold.agents set account = 'other'")
    await sane()
    assert len(await worker.claim()) == 1


async def test_the_front_job_locked_by_somebody_does_not_hold_up_other_tenants(sql, worker, job, connect):
    held, other = await job(tenant="a"), await job(tenant="b")
    user = await connect()
    async with user.transaction():
        await user.execute("select leasehold.cancel($1)", held)
        assert [run["job_id"] for run in await worker.claim(1)] == [other]
        assert await worker.claim(1) == []
    assert await worker.claim(1) == []
    assert await sql.fetchval("select status from leasehold.jobs where id = $1", held) == "cancelled"


async def test_a_lane_found_empty_while_another_is_parked_hides_no_work_of_its_tenant(sql, worker, job):
    await sql.execute("""
        insert into leasehold.agents (name, command, max_running) values ('full', '{true}', 0);
        insert into leasehold.tenants (name, max_running) values ('acme', 1)""")
    gone = [await job(tenant="acme", queue=f"q{n}") for n in range(5)]
    for each in gone:
        await sql.execute("select leasehold.cancel($1)", each)
    wanted = await job(tenant="acme")
    await job(tenant="other", agent="full")
    assert [run["job_id"] for run in await worker.claim(4)] == [wanted]


GUARD = """
create function public.guard() returns trigger language plpgsql as $$
declare
  over text;
begin
  select string_agg(what, ', ') into over from (
    select 'agent' from leasehold.agents a where a.name = new.agent and a.max_running
      < (select count(*) from leasehold.runs r where r.ended_at is null and r.agent = new.agent)
    union all select 'queue' from leasehold.queues q where q.name = new.queue and q.max_running
      < (select count(*) from leasehold.runs r where r.ended_at is null and r.queue = new.queue)
    union all select 'tenant' from leasehold.tenants t where t.name = new.tenant and t.max_running
      < (select count(*) from leasehold.runs r where r.ended_at is null and r.tenant = new.tenant)
    union all select 'repository' from leasehold.repositories p where (p.tenant, p.name) = (new.tenant, new.repository) and p.max_running
      < (select count(*) from leasehold.runs r where r.ended_at is null and (r.tenant, r.repository) = (new.tenant, new.repository))
    union all select 'host' from leasehold.hosts h where h.host_id = new.host_id and h.max_running
      < (select count(*) from leasehold.runs r where r.ended_at is null and r.host_id = new.host_id)
    union all select 'all' from leasehold.cluster c where c.max_running < (select count(*) from leasehold.runs r where r.ended_at is null)
    union all select 'held' from leasehold.holds h where h.until is null and (h.scope, h.name) in
      (('tenant', new.tenant), ('queue', new.queue), ('agent', new.agent)) and h.created_at < transaction_timestamp() - interval '1 second'
    ) o (what);
  insert into public.seen values (coalesce(over, 'fine'));
  return null;
end $$;
create table public.seen (what text);
create trigger limits_guard after insert on leasehold.runs for each row execute function public.guard();
"""


@pytest.mark.race
@pytest.mark.rule("P45", "P46", "P86", "PW14", "SW1", "X10", "X11", "X16")
async def test_hammer_of_limits(sql, connect, hire, sane):
    """Eight claimers under every kind of limit, with pauses, holds and limits that come and go: a trigger counts at every start."""
    await sql.execute(GUARD)
    await sql.execute("""
        insert into leasehold.agents (name, command, max_running) select 'a' || g, '{true}', nullif(g, 4) from generate_series(1, 4) g;
        insert into leasehold.tenants (name, max_running) select 't' || g, 2 from generate_series(1, 20, 2) g;
        insert into leasehold.queues (name, max_running) values ('narrow', 2);
        insert into leasehold.repositories (tenant, name, max_running) select 't' || g, 'r1', 1 from generate_series(1, 20) g;
        insert into leasehold.hosts (host_id, max_running) values ('host', 12);
        select leasehold.limit_all(10);""")
    done, chance = asyncio.Event(), random.Random(7)
    await sql.execute("""
        insert into leasehold.jobs (tenant, agent, queue, repository, prompt)
        select 't' || 1 + g % 20, 'a' || 1 + g % 4, case when g % 5 = 0 then 'narrow' else 'default' end,
               case when g % 3 = 0 then 'r1' end, 'x' from generate_series(1, 300) g""")

    async def runner(number):
        worker = await hire(await connect(), instance=f"w{number}")
        while not done.is_set():
            runs = await worker.claim(chance.choice([1, 2, 8]))
            await asyncio.sleep(chance.random() * 0.01)
            for run in runs:
                await worker.finish(run, *chance.choice([("succeeded", None)] * 4 + [("interrupted", "stopped")]))
            if not runs:
                await asyncio.sleep(0.01)

    async def meddler():
        connection = await connect()
        while not done.is_set():
            name = chance.choice(["t1", "t2", "t3"])
            async with connection.transaction():
                await connection.execute(f"select leasehold.pause_tenant('{name}'), leasehold.pause_agent('a4')")
                await connection.execute(
                    "select leasehold.hold('queue', 'narrow', 'x', leasehold.clock() + interval '30 ms')"
                )
                await connection.execute(
                    "select leasehold.hold('account', 'a3', 'x', leasehold.clock(), stagger => '5 ms')"
                )
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            await connection.execute(f"select leasehold.resume_tenant('{name}'), leasehold.resume_agent('a4')")
            await asyncio.sleep(0.02)

    async def observer():
        while not done.is_set():
            await sane()
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(part) for part in (*(runner(n) for n in range(8)), meddler(), observer())]
    await drained(await connect(), tasks)
    done.set()
    await asyncio.gather(*tasks)
    seen = Counter(row[0] for row in await sql.fetch("select what from public.seen"))
    assert set(seen) == {"fine"} and seen["fine"] >= 300, seen
    await sane()


async def test_a_lane_made_anew_knows_its_repository(sql, worker, job, look):
    """Whatever brings a job into its lane says where the lane belongs."""
    born, later = await job(repository="r", concurrency_key="k"), await job(repository="r", concurrency_key="k")
    await worker.fail(await worker.claim_one())
    assert (await look(later))["status"] == "queued"
    await sql.execute("delete from leasehold.lanes")
    await sql.execute("select leasehold.cancel($1)", later)
    await sql.execute("select leasehold.retry($1)", born)
    await sql.execute("insert into leasehold.repositories values ('default', 'r', 0)")
    assert await worker.claim() == []
    assert await sql.fetchval("select repository from leasehold.lanes") == "r"
