"""Asks by enqueue() and wake(): who has the key, who is joined, what a repeated request is answered."""

import json
from dataclasses import dataclass

from sql.machine.seen import DONE
from sql.machine.step import Step


def of_key(seen, tenant, key):
    """The jobs that take part in a key, those first that would be next."""
    return sorted(
        (
            job
            for job in seen.jobs.values()
            if (job.tenant, job.key) == (tenant, key) and job.policy != "allow" and job.status not in DONE
        ),
        key=lambda job: (-job.priority, job.wait, job.id),
    )


def taken(seen, tenant, key):
    return bool(of_key(seen, tenant, key))


def live_of(seen, tenant, key):
    return next((job for job in of_key(seen, tenant, key) if job.status != "deferred"), None)


def birth(seen, tenant, key, policy="defer"):
    return "deferred" if key and policy != "allow" and taken(seen, tenant, key) else "queued"


def spoken(job):
    """The key of those that go on with the conversation a job is in."""
    return f"session:{job.agent}:{job.session or f'job:{job.id}'}"


def retried(seen, job):
    """The key of a job that is tried again: that of its conversation, if it has none of its own and others may have gone on with it."""
    own = spoken(job)
    gone_on = taken(seen, job.tenant, own) or f"{job.tenant}/{job.agent}/job:{job.id}" in seen.sessions
    return own if job.key is None and job.session is None and gone_on else job.key


def beside(seen, job, key):
    """Whoever is in the conversation of a job, and would not be kept apart from it by this key."""
    if job.session is None:
        return key != spoken(job) and live_of(seen, job.tenant, spoken(job)) is not None
    return any(
        (one.tenant, one.agent, one.session, f"job:{one.id}") == (job.tenant, job.agent, None, job.session)
        and one.key != spoken(job)
        and one.status not in DONE
        for one in seen.jobs.values()
    )


def joined(seen, tenant, key, agent):
    """Whom an ask to be coalesced joins: a job of this agent that has not started."""
    live = live_of(seen, tenant, key)
    if live and live.status == "queued" and live.agent == agent:
        return live
    return next((job for job in of_key(seen, tenant, key) if job.status == "deferred" and job.agent == agent), None)


def told(seen, tenant, key, agent):
    """An agent at work that can be steered is told."""
    live = live_of(seen, tenant, key)
    able = live and live.status in ("running", "waiting") and live.agent == agent == "talker" and not live.cancelling
    return live if able else None


def placed(seen, tenant, key, agent, policy):
    """(job, disposition) of a new ask. The job is None if it is a new one."""
    if key is None or policy == "allow" or not taken(seen, tenant, key):
        return None, "accepted"
    if policy == "defer":
        return None, "deferred"
    if policy == "coalesce":
        target = joined(seen, tenant, key, agent) or told(seen, tenant, key, agent)
        return (target.id, "coalesced") if target else (None, "deferred")
    holder = live_of(seen, tenant, key) or of_key(seen, tenant, key)[0]
    return holder.id, {"reject": "rejected", "return_existing": "existing"}[policy]


@dataclass(frozen=True)
class Request(Step):
    """An ask that may have an idempotency key: the same request is the same job, another one is refused."""

    agent: str
    tenant: str
    key: str | None
    policy: str
    says: int
    again: str | None = None
    thread: str | None = None
    repository: str | None = None

    def given(self):
        return {
            "agent": self.agent, "tenant": self.tenant, "conflict_policy": self.policy, "context": json.dumps({f"ask-{self.says}": 1}),
            "idempotency_key": self.again and self.again + type(self).__name__, "thread": self.thread, "repository": self.repository,
        }  # fmt: skip

    async def call(self, hand, function, **more):
        given = self.given() | more
        names = ", ".join(f"{name} => ${n}" for n, name in enumerate(given, 1))
        return await hand.fetchrow(f"select * from leasehold.{function}({names})", *given.values())

    def known(self, seen):
        """What is there of it: an ask, or a job."""
        name = self.given()["idempotency_key"]
        rows = [*seen.asks.values(), *seen.jobs.values()] if name else []
        return next((row for row in rows if (row.tenant, row.again) == (self.tenant, name)), None)

    def placed(self, seen):
        return placed(seen, self.tenant, self.key, self.agent, self.policy)

    def agrees(self, answer, foretold):
        return answer == foretold or (foretold[0] is None and answer[0] and answer[1:] == foretold[1:])

    def learn(self, world, answer):
        job = answer[0]
        if self.again:
            world.requests[self.tenant, self.given()["idempotency_key"]] = self
        if job is not None and job not in world.jobs:
            world.jobs.append(job)


@dataclass(frozen=True)
class Enqueue(Request):
    """(job, disposition)"""

    refusals = ("LH031", "LH060", "40001")

    async def do(self, world, seen, hand):
        return tuple(await self.call(hand, "enqueue", prompt="x", concurrency_key=self.key))

    def foretell(self, world, seen):
        known = self.known(seen)
        if known:
            same = world.requests.get((self.tenant, self.given()["idempotency_key"])) == self
            return (known.get("job", known.id), "existing") if same else "LH031"
        job, disposition = self.placed(seen)
        return "LH060" if disposition == "rejected" else (job, disposition)


@dataclass(frozen=True)
class Wake(Request):
    """(job, disposition)"""

    refusals = ("LH031", "40001")

    async def do(self, world, seen, hand):
        row = await self.call(hand, "wake", key=self.key)
        return row["job_id"], row["disposition"]

    def foretell(self, world, seen):
        known = self.known(seen)
        if known:
            same = world.requests.get((self.tenant, self.given()["idempotency_key"])) == self
            return (known.job, known.disposition) if same else "LH031"
        if not seen.agents[self.agent].wakes:
            return None, "skipped"
        return self.placed(seen)

    def placed(self, seen):
        return placed(seen, self.tenant, self.key or f"agent:{self.agent}", self.agent, self.policy)

    def agrees(self, answer, foretold):
        if foretold == (None, "skipped"):
            return answer == foretold
        return super().agrees(answer, foretold)
