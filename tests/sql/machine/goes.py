"""How workers go: watched and reaped by the others, or by their own will."""

from dataclasses import dataclass

from sql.machine.step import refusal_of_worker
from sql.machine.works import Work


@dataclass(frozen=True)
class Watch(Work):
    """Note how the others' renewals stand, by the clock that cannot step. Part of a fair reap."""

    async def do(self, world, seen, hand):
        return await self.who(world, hand).watch()

    def learn(self, world, answer):
        for worker, (renewals, _) in answer.items():
            known = world.watched.get((world.worker(self.worker).id, worker))
            if known is None or known[0] != renewals:
                world.watched[world.worker(self.worker).id, worker] = (renewals, world.steady)


@dataclass(frozen=True)
class Reap(Work):
    """Naming all that look expired at once, or as the protocol has it, or with the counters of before their last renewal."""

    suspects: str
    actors = ("reap", "promote")

    def names(self, world, seen):
        reaper = world.worker(self.worker)
        if self.suspects == "fair":
            return {
                worker: renewals
                for (watcher, worker), (renewals, since) in world.watched.items()
                if watcher == reaper.id and world.steady - since >= 120
            }
        behind = {"all": 0, "stale": 1}[self.suspects]
        return {row.id: row.renewals - behind for row in seen.workers.values()}

    def holds(self, world, seen):
        named = self.names(world, seen)
        return not seen.open or not any(
            row.state == "alive" and row.expired and named.get(row.id) == row.renewals for row in seen.workers.values()
        )

    async def do(self, world, seen, hand):
        named = {worker: (renewals, True) for worker, renewals in self.names(world, seen).items()}
        rows = await self.who(world, hand).reap(named)
        return sorted((row["run_id"], row["lost_worker"]) for row in rows)

    def foretell(self, world, seen):
        reaper, named = world.worker(self.worker), self.names(world, seen)
        if refused := refusal_of_worker(reaper, seen):
            return refused
        if not seen.open:
            return []
        gone = {
            row.id
            for row in seen.workers.values()
            if row.state != "alive" or (row.expired and row.id != reaper.id and named.get(row.id) == row.renewals)
        }
        return sorted((run.id, run.worker) for run in seen.live() if run.worker in gone)


@dataclass(frozen=True)
class Deregister(Work):
    refusals = ("LH012", "LH015")
    actors = ("deregister",)

    async def do(self, world, seen, hand):
        await self.who(world, hand).deregister()

    def foretell(self, world, seen):
        worker = world.worker(self.worker)
        return "LH015" if seen.workers[worker.id].state == "alive" and seen.live_of(worker) else None

    def holds(self, world, seen):
        return seen.workers[world.worker(self.worker).id].state != "alive"


@dataclass(frozen=True)
class Sweep(Work):
    """One round of retention. Answers how many jobs went."""

    actors = ("sweep",)

    async def do(self, world, seen, hand):
        me = self.who(world, hand).me
        row = await hand.fetchrow("select * from leasehold.sweep_retention($1, $2)", *me)
        return row and row["removed"]
