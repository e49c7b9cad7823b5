"""What is said of runs that had been given up as lost."""

from dataclasses import dataclass

from sql.machine.speaks import Speak, Voices
from sql.machine.world import at


def awaited(seen, run):
    """Was this (id, token) lost, and has nobody told yet what really became of it?"""
    return seen.lost(run) and seen.runs[run["run_id"]].late is None


@dataclass(frozen=True)
class ReadLate(Voices):
    """(run, honest)."""

    async def do(self, world, seen, hand):
        rows = await hand.fetch(
            "select * from leasehold.read_late($1, $2, $3, $4)", *world.worker(0).me, *self.arrays(world)
        )
        return sorted(row["run_id"] for row in rows)

    def foretell(self, world, seen):
        return sorted(run["run_id"] for run, *_ in self.voices(world) if awaited(seen, run))


@dataclass(frozen=True)
class ShipLate(Speak):
    """The rest of its output, as one chunk."""

    place: int = 0
    actors = ("ship late",)
    refusals = (*Speak.refusals, "LH016")

    async def do(self, world, seen, hand):
        worker, run = at(self.who(world, seen), hand), self.whose(world)
        await hand.execute(
            "select leasehold.append_late_output($1, $2, $3, $4, '{stdout}', array[$5::bigint], '{late}')",
            *worker.me, run["run_id"], run["run_token"], self.place,
        )  # fmt: skip

    def foretell(self, world, seen):
        if awaited(seen, self.whose(world)):
            return None
        return super().foretell(world, seen) or ("LH016" if seen.runs[self.whose(world)["run_id"]].live else "LH010")
