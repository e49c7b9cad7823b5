"""Daemons and clients that use every rule at once, and triggers that look at each start from inside the database."""

import asyncio
import json
import random
from datetime import timedelta

import asyncpg

WORLD = """
create schema hammer;
create table hammer.faults (what text);
create table hammer.seen (job_id bigint, marker text, primary key (job_id, marker));
create table hammer.promoted (job_id bigint);

insert into leasehold.agents (name, command, max_running, retry_backoff, retry_backoff_max)
  select 'a' || g, '{true}', case when g = 1 then 2 when g = 2 then 5 end, '0', '0' from generate_series(0, 4) g;
insert into leasehold.tenants (name, max_running, weight) select 't' || g, case when g % 2 = 0 then 4 end, 1 + g from generate_series(0, 4) g;
insert into leasehold.queues (name, max_running, ageing) values ('narrow', 2, null), ('aged', null, '1 second');
insert into leasehold.repositories (tenant, name, max_running) select 't' || g, 'repo', 1 from generate_series(0, 4) g;
insert into leasehold.hosts (host_id, max_running) values ('h0', 3);
select leasehold.limit_all(20);

create function hammer.look() returns trigger language plpgsql as $$
declare
  job leasehold.jobs;
begin
  select j.* into strict job from leasehold.jobs j where j.id = new.job_id;
  insert into hammer.faults
  select what || ' has ' || live || ' of ' || most
    from (values
      ('agent ' || new.agent, (select max_running from leasehold.agents where name = new.agent),
       (select count(*) from leasehold.runs where ended_at is null and agent = new.agent)),
      ('tenant ' || new.tenant, (select max_running from leasehold.tenants where name = new.tenant),
       (select count(*) from leasehold.runs where ended_at is null and tenant = new.tenant)),
      ('queue ' || new.queue, (select max_running from leasehold.queues where name = new.queue),
       (select count(*) from leasehold.runs where ended_at is null and queue = new.queue)),
      ('repository', (select max_running from leasehold.repositories where (tenant, name) = (new.tenant, new.repository)),
       (select count(*) from leasehold.runs where ended_at is null and (tenant, repository) = (new.tenant, new.repository))),
      ('host', (select max_running from leasehold.hosts where host_id = new.host_id),
       (select count(*) from leasehold.runs where ended_at is null and host_id = new.host_id)),
      ('all', (select max_running from leasehold.cluster), (select count(*) from leasehold.runs where ended_at is null)),
      ('key ' || coalesce(job.concurrency_key, ''), case when job.concurrency_key is not null and job.conflict_policy <> 'allow' then 1 end,
       (select count(*) from leasehold.runs r join leasehold.jobs j on j.id = r.job_id
         where r.ended_at is null and (j.tenant, j.concurrency_key) = (job.tenant, job.concurrency_key) and j.conflict_policy <> 'allow'))
      ) one (what, most, live)
   where live > most;
  insert into hammer.seen select job.id, each.key from jsonb_each(job.context) each where each.key like 'ask-%' on conflict do nothing;
  return null;
end $$;
create trigger look after insert on leasehold.runs for each row execute function hammer.look();

create function hammer.promoted() returns trigger language plpgsql as $$
begin
  insert into hammer.promoted values (new.id);
  return null;
end $$;
create trigger promoted after update of status on leasehold.jobs for each row
  when (old.status = 'deferred' and new.status = 'queued') execute function hammer.promoted();"""

LOST = """
select w.id, w.disposition, w.job_id, j.status, j.reason
  from leasehold.wakeups w
  left join leasehold.jobs j on j.id = w.job_id
 cross join lateral (select key from jsonb_object_keys(w.context) key where key like 'ask-%') m
 where w.disposition in ('accepted', 'coalesced', 'deferred', 'promoted')
   and j.cancel_requested_at is null
   and not exists (select from hammer.seen s where s.job_id = w.job_id and s.marker = m.key)"""
TWICE = """
select context ->> 'schedule', context ->> 'tick', count(*) from leasehold.wakeups where source = 'schedule' group by 1, 2 having count(*) > 1"""
PROMOTED = """
select p.job_id, count(*) from hammer.promoted p group by 1
having count(*) > 1 + (select count(*) from leasehold.events e where e.job_id = p.job_id and e.kind = 'retried')"""
BARRIER = "select pg_advisory_xact_lock(hashtextextended('leasehold.claim', 0))"
"""After it, every claim sees what was committed before it."""
TENANTS, AGENTS, KEYS = [f"t{n}" for n in range(5)], [f"a{n}" for n in range(5)], [f"k{n}" for n in range(12)]
POLICIES = ["coalesce"] * 5 + ["defer"] * 2 + ["reject", "return_existing", "allow"]
REFUSED = {"LH021", "LH022", "LH023", "LH060", "40001"}
"""What a client may hear: it has ended, it cannot be retried, the key is taken, repeat."""


class Crowd:
    """Everything that acts, until `over` is set."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.over = asyncio.Event()
        self.asks = self.plans = self.deadlocks = 0

    async def client(self, sql):
        """One client: asks, cancels, retries; now and then in a transaction that it leaves open for a while."""
        acts = [self.wake] * 9 + [self.enqueue] * 3 + [self.insert] * 2 + [self.cancel] * 2 + [self.retry]
        while not self.over.is_set():
            act = self.chance.choice(acts)
            try:
                async with sql.transaction():
                    await act(sql)
                    await asyncio.sleep(self.chance.choice([0] * 9 + [0.05]))
            except asyncpg.DeadlockDetectedError:
                self.deadlocks += 1  # to be repeated by whoever meets it, as any client does
            except asyncpg.PostgresError as error:
                assert error.sqlstate in REFUSED, f"{act.__name__}: {error.sqlstate} {error}"
            await asyncio.sleep(0.01 * self.chance.random())

    def somewhere(self):
        return {
            "tenant": self.chance.choice(TENANTS),
            "agent": self.chance.choice(AGENTS),
            "queue": self.chance.choice(["default", "default", "narrow", "aged"]),
            "priority": self.chance.choice([0, 0, 7]),
            "repository": self.chance.choice([None, None, "repo"]),
            "thread": self.chance.choice([None, "x", "y"]),
        }

    async def wake(self, sql):
        self.asks += 1
        given = self.somewhere() | {
            "key": self.chance.choice([*KEYS, None]),
            "context": json.dumps({f"ask-{self.asks}": True}),
            "conflict_policy": self.chance.choice(POLICIES),
            "idempotency_key": self.chance.choice([None, f"i{self.asks}"]),
        }
        names = ", ".join(f"{name} => ${n}" for n, name in enumerate(given, 1))
        await sql.fetch(f"select * from leasehold.wake({names})", *given.values())

    async def enqueue(self, sql):
        given = self.somewhere() | {
            "prompt": "x", "concurrency_key": self.chance.choice(KEYS), "conflict_policy": self.chance.choice(POLICIES),
        }  # fmt: skip
        names = ", ".join(f"{name} => ${n}" for n, name in enumerate(given, 1))
        await sql.fetch(f"select * from leasehold.enqueue({names})", *given.values())

    async def insert(self, sql):
        given = self.somewhere() | {
            "prompt": "x", "concurrency_key": self.chance.choice([*KEYS, None, None]), "max_attempts": self.chance.choice([1, 2]),
            "conflict_policy": self.chance.choice(["defer", "defer", "allow", "reject"]),
        }  # fmt: skip
        places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
        await sql.execute(f"insert into leasehold.jobs ({', '.join(given)}) values ({places})", *given.values())

    async def some(self, sql, states):
        return await sql.fetchval(
            "select id from leasehold.jobs where status = any ($1) order by random() limit 1", list(states)
        )

    async def cancel(self, sql):
        await sql.execute("select leasehold.cancel($1)", await self.some(sql, ("queued", "deferred", "running")))

    async def retry(self, sql):
        await sql.execute("select leasehold.retry($1)", await self.some(sql, ("failed", "cancelled")))

    async def pauser(self, sql):
        """Pauses this and that; once every claim must know it, nothing of it starts."""
        kinds = [
            ("agent", AGENTS, "agent"), ("queue", ["narrow", "aged"], "queue"), ("tenant", TENANTS, "tenant"), ("all", [None], None),
        ]  # fmt: skip
        while not self.over.is_set():
            kind, names, column = self.chance.choice(kinds)
            name = self.chance.choice(names)
            words = [] if name is None else [name]
            await sql.execute(f"select leasehold.pause_{kind}({'$1' if words else ''})", *words)
            await sql.execute(BARRIER)
            last = await sql.fetchval("select coalesce(max(id), 0) from leasehold.runs")
            await asyncio.sleep(0.03)
            where = f" and {column} = $2" if column else ""
            since = await sql.fetchval(f"select count(*) from leasehold.runs where id > $1{where}", last, *words)
            assert since == 0, f"{since} runs of the paused {kind} {name}"
            await sql.execute(f"select leasehold.resume_{kind}({'$1' if words else ''})", *words)
            await asyncio.sleep(0.1)

    async def planner(self, sql):
        """Schedules come, change and go."""
        while not self.over.is_set():
            self.plans += 1
            number = self.plans
            await sql.execute(
                "insert into leasehold.schedules (tenant, name, agent, prompt, every, context) values ($1, $2, $3, 'tick', $4, '{}')",
                self.chance.choice(TENANTS), f"s{number}", self.chance.choice(AGENTS), timedelta(seconds=self.chance.choice([1, 1, 2])),
            )  # fmt: skip
            if number % 3 == 0:
                await sql.execute(
                    "update leasehold.schedules set enabled = not enabled where name = $1", f"s{number - 1}"
                )
            await asyncio.sleep(0.3)

    async def daemon(self, worker, ends):
        """Claims, works for a moment, settles; fires what is due."""
        busy, turn = set(), asyncio.Lock()

        async def one(run):
            await asyncio.sleep(self.chance.random() * 0.02)
            outcome, reason = self.chance.choices(
                [("succeeded", None), ("failed", "exit_code"), ("lost", "worker_lost"), ("interrupted", "stopped")],
                [80, 12, 4, 4],
            )[0]
            async with turn:
                await worker.finish(run, outcome, reason, sql=ends)

        while not self.over.is_set() or busy or self.draining:
            runs = await worker.claim(6 - len(busy)) if len(busy) < 6 else []
            for run in runs:
                task = asyncio.create_task(one(run))
                busy.add(task)
                task.add_done_callback(lambda done: (busy.discard(done), done.result()))
            await self.fire(worker)
            await asyncio.sleep(0.002 if runs else 0.01)

    draining = True

    async def fire(self, worker):
        for due in await worker.sql.fetch("select * from leasehold.due_schedules($1, $2, 5)", *worker.me):
            if due["due_in"] <= timedelta(0):
                await worker.sql.fetch(
                    "select * from leasehold.fire_schedule($1, $2, $3, $4, $5, null)",
                    *worker.me, due["schedule"], due["version"], due["next_at"],
                )  # fmt: skip
