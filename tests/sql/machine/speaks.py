"""What workers say of their runs: started, stopping, suspect, words, output, the verdict."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from sql.machine.step import Step, refusal_of_run
from sql.machine.world import at

VOCABULARY = Path(__file__).parents[3] / "sql/functions/vocabulary.sql"
REASONS = [
    (outcome, reason) for reason, outcome in re.findall(r"^  \('(\w+)', +'(\w+)', +(?:true|false)", VOCABULARY.read_text(), re.MULTILINE)
]  # fmt: skip
WRONG = [("succeeded", "exit_code"), ("lost", "ok"), ("failed", None)]


@dataclass(frozen=True)
class Speak(Step):
    """Something said of one run, by the worker that has it or by another one."""

    run: int
    by: int | None = None
    forged: bool = field(default=False, kw_only=True)  # with a token that is not the run's
    refusals = ("LH010", "LH011", "LH012", "LH013")

    def possible(self, world, seen):
        return bool(world.runs) and self.who(world, seen) is not None

    def whose(self, world):
        run = world.run_of(self.run)
        return run | {"run_token": world.worker(0).token} if self.forged else run

    def who(self, world, seen):
        return world.owner(self.whose(world), seen) if self.by is None else world.worker(self.by)

    def foretell(self, world, seen):
        return refusal_of_run(self.who(world, seen), self.whose(world), seen)

    def said(self, world, seen):
        run = self.whose(world)
        return *self.who(world, seen).me, run["run_id"], run["run_token"]


@dataclass(frozen=True)
class Start(Speak):
    actors = ("start",)

    async def do(self, world, seen, hand):
        await hand.execute("select leasehold.start_run($1, $2, $3, $4, '{}')", *self.said(world, seen))


@dataclass(frozen=True)
class Stop(Speak):
    actors = ("stop",)

    async def do(self, world, seen, hand):
        await hand.execute("select leasehold.stop_run($1, $2, $3, $4, 'idle')", *self.said(world, seen))


@dataclass(frozen=True)
class Suspect(Speak):
    async def do(self, world, seen, hand):
        await hand.execute("select leasehold.suspect_run($1, $2, $3, $4, 'idle', '{}')", *self.said(world, seen))


@dataclass(frozen=True)
class Unkillable(Speak):
    async def do(self, world, seen, hand):
        await hand.execute("select leasehold.report_unkillable($1, $2, $3, $4, '{}')", *self.said(world, seen))


@dataclass(frozen=True)
class Finish(Speak):
    outcome: str = "succeeded"
    reason: str | None = None
    refusals = (*Speak.refusals, "LH014")
    actors = ("finish", "late", "promote")

    async def do(self, world, seen, hand):
        worker, run = at(self.who(world, seen), hand), self.whose(world)
        return (await worker.finish(run, self.outcome, self.reason))["disposition"]

    def foretell(self, world, seen):
        reason = self.reason or {"succeeded": "ok"}.get(self.outcome)
        if (self.outcome, reason) not in REASONS:
            return "LH014"
        refused = refusal_of_run(self.who(world, seen), self.whose(world), seen)
        if refused != "LH010":
            return refused or "settled"
        row = seen.runs[self.whose(world)["run_id"]]
        if (row.outcome, row.reason) == (self.outcome, reason):
            return "repeated"
        again = row.late is None or (row.late.outcome, row.late.reason) == (self.outcome, reason)
        return "late" if row.outcome == "lost" and again else "LH010"


@dataclass(frozen=True)
class Voices(Step):
    """One statement for several runs: (run, with its own token?, what). Answers the runs that are refused."""

    said: tuple[tuple, ...]

    def possible(self, world, seen):
        return bool(world.runs)

    def voices(self, world):
        for number, honest, *what in self.said:
            run = world.run_of(number)
            yield run if honest else run | {"run_token": world.worker(0).token}, *what

    def foretell(self, world, seen):
        return sorted({run["run_id"] for run, *_ in self.voices(world) if not seen.speaks(run)})

    def is_mute(self, world, seen):
        return not any(seen.speaks(run) for run, *_ in self.voices(world))

    def arrays(self, world):
        voices = list(self.voices(world))
        runs, *whats = zip(*voices, strict=True)
        return [run["run_id"] for run in runs], [run["run_token"] for run in runs], *map(list, whats)


@dataclass(frozen=True)
class Say(Voices):
    """(run, honest, mark)."""

    async def do(self, world, seen, hand):
        return sorted(await at(world.worker(0), hand).say(*((run, mark, "said") for run, mark in self.voices(world))))


@dataclass(frozen=True)
class Ship(Voices):
    """(run, honest, stream, offset, bytes)."""

    async def do(self, world, seen, hand):
        return sorted(await at(world.worker(0), hand).ship(*self.voices(world)))


@dataclass(frozen=True)
class Trim(Voices):
    """(run, honest, stream, start, end)."""

    actors = ("trim",)

    async def do(self, world, seen, hand):
        rows = await hand.fetch("select * from leasehold.trim_output($1, $2, $3, $4, $5)", *self.arrays(world))
        return sorted(row[0] for row in rows)


@dataclass(frozen=True)
class Checkpoint(Voices):
    """(run, honest, where)."""

    async def do(self, world, seen, hand):
        runs, tokens, where = self.arrays(world)
        rows = await hand.fetch(
            "select * from leasehold.save_checkpoints($1, $2, $3)", runs, tokens, [json.dumps(at) for at in where]
        )
        return sorted(row[0] for row in rows)
