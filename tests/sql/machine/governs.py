"""What operators do: limits of every kind, pauses, holds and their ends, switches, a failover."""

from dataclasses import dataclass
from datetime import timedelta

from sql.machine.step import Step


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


@dataclass(frozen=True)
class Most(Step):
    """How many may run at once in a repository, on a host, and altogether."""

    of: str
    most: int | None

    async def do(self, world, seen, hand):
        if self.of == "all":
            await hand.execute("select leasehold.limit_all($1)", self.most)
        else:
            columns, values = {
                "hosts": ("host_id", "'host'"), "repositories": ("tenant, name", "'default', 'repo'"),
            }[self.of]  # fmt: skip
            await hand.execute(
                f"insert into leasehold.{self.of} ({columns}, max_running) values ({values}, $1)"
                f" on conflict ({columns}) do update set max_running = $1",
                self.most,
            )


@dataclass(frozen=True)
class Hold(Step):
    """Until it is lifted, or for so many seconds; then at once, or one start after the other."""

    scope: str
    name: str
    seconds: int | None
    stagger: int | None
    actors = ("hold",)

    async def do(self, world, seen, hand):
        await hand.execute(
            "select leasehold.hold($1, $2, 'held', until => leasehold.clock() + $3, stagger => $4)",
            self.scope, self.name,
            None if self.seconds is None else timedelta(seconds=self.seconds),
            None if self.seconds is None or self.stagger is None else timedelta(seconds=self.stagger),
        )  # fmt: skip

    def holds(self, world, seen):
        return f"{self.scope}:{self.name}:held" in seen.holds


@dataclass(frozen=True)
class Lift(Step):
    number: int
    actors = ("hold",)

    def possible(self, world, seen):
        return any(hold.reason == "held" for hold in seen.holds.values())

    async def do(self, world, seen, hand):
        held = [hold for _, hold in sorted(seen.holds.items()) if hold.reason == "held"]
        one = held[self.number % len(held)]
        return await hand.fetchval("select leasehold.lift($1, $2, 'held')", one.scope, one.name)

    def foretell(self, world, seen):
        return 1


@dataclass(frozen=True)
class Switch(Step):
    """Whether an agent may be woken on demand."""

    agent: str
    on: bool

    async def do(self, world, seen, hand):
        await hand.execute("update leasehold.agents set wake_on_demand = $2 where name = $1", self.agent, self.on)
