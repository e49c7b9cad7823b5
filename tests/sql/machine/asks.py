"""What users and operators ask for."""

from dataclasses import dataclass
from datetime import timedelta

from sql.machine.seen import DONE
from sql.machine.step import Step


@dataclass(frozen=True)
class Insert(Step):
    agent: str
    tenant: str
    queue: str
    key: str | None
    attempts: int
    ahead: int
    many: int
    priority: int = 0

    async def do(self, world, seen, hand):
        rows = await hand.fetch(
            "insert into leasehold.jobs (agent, tenant, queue, concurrency_key, max_attempts, max_losses, run_at, priority, prompt)"
            " select $1, $2, $3, $4, $5, $5 + 1, leasehold.clock() + $6, $7, 'x' from generate_series(1, $8) returning id, status",
            self.agent, self.tenant, self.queue, self.key, self.attempts, timedelta(seconds=self.ahead), self.priority, self.many,
        )  # fmt: skip
        self.remember(world, [row["id"] for row in rows])
        return [row["status"] for row in rows]

    def remember(self, world, ids):
        world.born[self] = ids

    def learn(self, world, answer):
        world.jobs += world.born[self]

    def foretell(self, world, seen):
        born = [birth(seen, self.tenant, self.key)] * self.many
        return born if self.key is None else born[:1] + ["deferred"] * (self.many - 1)


def birth(seen, tenant, key):
    taken = any((job.tenant, job.key) == (tenant, key) and job.status not in DONE for job in seen.jobs.values())
    return "deferred" if key and taken else "queued"


@dataclass(frozen=True)
class Enqueue(Step):
    """With an idempotency key: the same request is the same job, another one is refused."""

    agent: str
    idempotency_key: str
    prompt: str
    key: str | None
    refusals = ("LH031",)

    async def do(self, world, seen, hand):
        return tuple(await hand.fetchrow(
            "select * from leasehold.enqueue(agent => $1, idempotency_key => $2, prompt => $3, concurrency_key => $4)",
            self.agent, self.idempotency_key, self.prompt, self.key,
        ))  # fmt: skip

    def foretell(self, world, seen):
        known = world.requests.get(self.idempotency_key)
        if known is None:
            return None, {"queued": "accepted"}.get(birth(seen, "default", self.key), "deferred")
        return (known[1], "existing") if known[0] == self else "LH031"

    def agrees(self, answer, foretold):
        return answer == foretold or (foretold[0] is None and answer[1] == foretold[1])

    def learn(self, world, answer):
        request, job = world.requests.setdefault(self.idempotency_key, (self, answer[0]))
        assert (request, job) == (self, answer[0]), f"{self.idempotency_key} is job {job} and job {answer[0]}"
        if job not in world.jobs:
            world.jobs.append(job)


@dataclass(frozen=True)
class Ask(Step):
    """Something asked of one job."""

    job: int

    def possible(self, world, seen):
        return bool(world.jobs)


@dataclass(frozen=True)
class Cancel(Ask):
    refusals = ("LH021", "LH023")
    actors = ("cancel", "promote")

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.cancel($1, 'enough')", world.job(self.job))

    def foretell(self, world, seen):
        job = seen.jobs[world.job(self.job)]
        return "LH021" if job.status in DONE else "requested" if job.status in ("running", "waiting") else "cancelled"


@dataclass(frozen=True)
class Retry(Ask):
    refusals = ("LH022", "LH023")
    actors = ("retry",)

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.retry($1)", world.job(self.job))

    def foretell(self, world, seen):
        job = seen.jobs[world.job(self.job)]
        return birth(seen, job.tenant, job.key) if job.status in DONE and job.status != "succeeded" else "LH022"


@dataclass(frozen=True)
class Pause(Step):
    agent: str
    paused: bool

    async def do(self, world, seen, hand):
        await hand.execute(f"select leasehold.{'pause' if self.paused else 'resume'}_agent($1)", self.agent)


@dataclass(frozen=True)
class Limit(Step):
    """Somebody changes how many may run at once, of an agent, a tenant or a queue; or pauses a whole tenant or queue."""

    of: str
    name: str
    most: int | None
    paused: bool = False

    async def do(self, world, seen, hand):
        if self.of == "agents":
            await hand.execute("update leasehold.agents set max_running = $2 where name = $1", self.name, self.most)
        else:
            await hand.execute(
                f"insert into leasehold.{self.of} (name, max_running, paused) values ($1, $2, $3)"
                " on conflict (name) do update set max_running = $2, paused = $3",
                self.name, self.most, self.paused,
            )  # fmt: skip


@dataclass(frozen=True)
class Failover(Step):
    """Another timeline: claims and reaps stay closed for one lease."""

    async def do(self, world, seen, hand):
        await hand.execute("update leasehold.cluster set timeline = 'another'")
