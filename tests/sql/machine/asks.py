"""What users ask for: jobs by plain INSERT, and what becomes of one job."""

from dataclasses import dataclass
from datetime import timedelta

from sql.machine.keys import beside, birth, retried, taken
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
    policy: str = "defer"
    repository: str | None = None
    thread: str | None = None
    refusals = ("LH060", "LH061")

    async def do(self, world, seen, hand):
        rows = await hand.fetch(
            "insert into leasehold.jobs (agent, tenant, queue, concurrency_key, max_attempts, max_losses, run_at, priority, prompt,"
            " conflict_policy, repository, thread)"
            " select $1, $2, $3, $4, $5, $5 + 1, leasehold.clock() + $6, $7, 'x', $9, $10, $11 from generate_series(1, $8)"
            " returning id, status",
            self.agent, self.tenant, self.queue, self.key, self.attempts, timedelta(seconds=self.ahead), self.priority, self.many,
            self.policy, self.repository, self.thread,
        )  # fmt: skip
        self.remember(world, [row["id"] for row in rows])
        return [row["status"] for row in rows]

    def remember(self, world, ids):
        world.born[self] = ids

    def learn(self, world, answer):
        world.jobs += world.born[self]

    def foretell(self, world, seen):
        if self.key is None or self.policy == "allow":
            return ["queued"] * self.many
        if self.policy != "defer" and (self.many > 1 or taken(seen, self.tenant, self.key)):
            return "LH060" if self.policy == "reject" else "LH061"
        return [birth(seen, self.tenant, self.key), *["deferred"] * (self.many - 1)]


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
    refusals = ("LH022", "LH023", "LH126")
    actors = ("retry",)

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.retry($1)", world.job(self.job))

    def foretell(self, world, seen):
        job = seen.jobs[world.job(self.job)]
        if job.status not in DONE or job.status == "succeeded":
            return "LH022"
        if job.policy == "allow":
            return "queued"
        key = retried(seen, job)
        return "LH126" if beside(seen, job, key) else birth(seen, job.tenant, key)


@dataclass(frozen=True)
class Delete(Ask):
    """Only what has ended goes, and all of it."""

    refusals = ("LH023", "LH095")
    actors = ("delete",)

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.delete_job($1)", world.job(self.job))

    def foretell(self, world, seen):
        return "deleted" if seen.jobs[world.job(self.job)].status in DONE else "LH095"
