"""What workers do on their lease: register, claim, read, renew, adopt, expire."""

from dataclasses import dataclass

from sql.machine.step import UNKNOWN, Step, refusal_of_worker
from sql.machine.world import at
from sql.people import register


@dataclass(frozen=True)
class Register(Step):
    instance: str
    keeper: str = "keeper-1"
    boot: str = "boot-1"
    queues: tuple[str, ...] | None = None

    async def do(self, world, seen, hand):
        queues = list(self.queues) if self.queues else None
        return await register(
            hand, self.instance, self.keeper, self.boot, queues, host={"keeper-1": "host"}.get(self.keeper, "far")
        )

    def learn(self, world, answer):
        world.workers = [*world.workers, answer][-8:]


@dataclass(frozen=True)
class Work(Step):
    """Something a worker does on its lease."""

    worker: int
    refusals = ("LH012",)

    def who(self, world, hand):
        return at(world.worker(self.worker), hand)


@dataclass(frozen=True)
class Claim(Work):
    slots: int
    actors = ("claim", "promote", "coalesce")

    async def do(self, world, seen, hand):
        return [dict(row) for row in await self.who(world, hand).claim(self.slots)]

    def foretell(self, world, seen):
        worker = world.worker(self.worker)
        if not seen.may_work(worker):
            return "LH012"
        if not seen.open:
            return []
        return UNKNOWN

    def could_claim(self, world, seen):
        worker = seen.workers[world.worker(self.worker).id]
        return seen.claimable(worker) if seen.open and self.slots else ()

    def learn(self, world, answer):
        world.runs += answer


@dataclass(frozen=True)
class Renew(Work):
    """Naming its own runs, or any."""

    named: tuple[int, ...] | None

    def names(self, world, seen):
        if self.named is None:
            return sorted(seen.live_of(world.worker(self.worker)))
        return [world.run_of(number)["run_id"] for number in self.named if world.runs]

    async def do(self, world, seen, hand):
        rows = await self.who(world, hand).renew(self.names(world, seen))
        return sorted((row["what"], row["run_id"] or int(row["detail"])) for row in rows)

    def foretell(self, world, seen):
        worker = world.worker(self.worker)
        own, named = seen.live_of(worker), set(self.names(world, seen))
        return refusal_of_worker(worker, seen) or sorted(
            [("renewed", len(own))]
            + [("lost", run) for run in named - own]
            + [("unnamed", run) for run in own - named]
            + [("budget", run) for run in own if seen.runs[run].passed]
            + [("input", run) for run in own if seen.runs[run].input]
            + [("cancel", run) for run in own if seen.jobs[seen.runs[run].job].cancelling]
        )


@dataclass(frozen=True)
class Read(Renew):
    """The bodies of its own live runs, whatever it names."""

    async def do(self, world, seen, hand):
        rows = await self.who(world, hand).read(self.names(world, seen))
        return sorted(row["run_id"] for row in rows)

    def foretell(self, world, seen):
        own = seen.live_of(world.worker(self.worker))
        return sorted(run for run in self.names(world, seen) if run in own)


@dataclass(frozen=True)
class Adopt(Work):
    """Keeping all runs, or some; now and then with a token that is not the run's."""

    kept: tuple[int, ...] | None
    wrong_token: bool = False
    actors = ("adopt", "promote")

    def keeps(self, world):
        runs = world.runs if self.kept is None else [world.run_of(number) for number in self.kept if world.runs]
        if self.wrong_token and runs:
            runs = [*runs[:-1], runs[-1] | {"run_token": world.worker(self.worker).token}]
        return runs

    async def do(self, world, seen, hand):
        return await self.who(world, hand).adopt(self.keeps(world))

    def lives(self, last, seen):
        """This one, and the lives of its instance before it."""
        mine = [w for w in seen.workers.values() if (w.instance, w.keeper) == (last.instance, last.keeper)]
        return [w for w in mine if w.id <= last.id]

    def holds(self, world, seen):
        last = seen.workers[world.worker(self.worker).id]
        return [w.id for w in self.lives(last, seen) if w.state == "alive"] == [last.id]

    def foretell(self, world, seen):
        worker = world.worker(self.worker)
        self_, kept = seen.workers[worker.id], {run["run_id"] for run in self.keeps(world) if seen.speaks(run)}
        lives = {w.id for w in self.lives(self_, seen)}
        found = [
            ("adopted" if run.id in kept else "ended", run.id)
            for run in seen.live()
            if run.worker in lives and (run.id in kept or run.worker != self_.id)
        ]
        return refusal_of_worker(worker, seen) or sorted(found)


@dataclass(frozen=True)
class Expire(Work):
    """End what has waited longer than its agent's queue_timeout."""

    actors = ("expire", "promote")

    async def do(self, world, seen, hand):
        worker = self.who(world, hand)
        return sorted(row[0] for row in await hand.fetch("select * from leasehold.expire_queued($1, $2)", *worker.me))

    def foretell(self, world, seen):
        late = sorted(job.id for job in seen.jobs.values() if job.status in ("queued", "deferred") and job.waited_out)
        return refusal_of_worker(world.worker(self.worker), seen) or late
