"""Words with agents at work: turns, what agents ask, answers, and what a worker carries between them."""

import json
from dataclasses import dataclass

from sql.machine.asks import Ask
from sql.machine.seen import DONE
from sql.machine.speaks import Voices
from sql.machine.step import Step
from sql.machine.works import Work

STEERABLE = "talker"


@dataclass(frozen=True)
class Turn(Ask):
    """Words for the agent of a job; the same key is the same turn."""

    kind: str = "steer"
    again: bool = False
    refusals = ("LH023", "LH101", "LH102", "LH103", "LH109")

    async def do(self, world, seen, hand):
        key = "again" if self.again else None
        return await hand.fetchval(f"select leasehold.{self.kind}($1, 'say it', $2)", world.job(self.job), key)

    def foretell(self, world, seen):
        job = seen.jobs[world.job(self.job)]
        known = [turn for turn in seen.turns.values() if turn.job == job.id and turn.again] if self.again else []
        if known:
            return known[0].id if known[0].kind == self.kind else "LH103"
        if job.status in DONE or job.cancelling:
            return "LH101"
        if self.kind == "interrupt" and (job.status not in ("running", "waiting") or job.agent != STEERABLE):
            return "LH102"
        return max([turn.id for turn in seen.turns.values()], default=0) + 1

    def agrees(self, answer, foretold):
        return answer == foretold or (isinstance(foretold, int) and isinstance(answer, int) and answer >= foretold)


@dataclass(frozen=True)
class CancelTurn(Step):
    turn: int
    refusals = ("LH104",)

    def possible(self, world, seen):
        return bool(seen.turns)

    def which(self, seen):
        return list(seen.turns.values())[self.turn % len(seen.turns)]

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.cancel_turn($1)", self.which(seen).id)

    def foretell(self, world, seen):
        state = self.which(seen).state
        return state if state == "ended" else "cancelled"


@dataclass(frozen=True)
class Carry(Work):
    """Read what waits for its runs, and say that their keeper has some of it."""

    some: int = 2

    async def do(self, world, seen, hand):
        worker = self.who(world, hand)
        runs = sorted(seen.live_of(worker))
        rows = await hand.fetch("select * from leasehold.read_inputs($1, $2, $3)", *worker.me, runs)
        taken = rows[: self.some]
        await hand.execute(
            "select leasehold.take_inputs($1, $2, $3, $4, $5)",
            *worker.me, [row["run_id"] for row in taken], [row["kind"] for row in taken], [row["id"] for row in taken],
        )  # fmt: skip
        return sorted({row["run_id"] for row in rows})

    def foretell(self, world, seen):
        return sorted(run for run in seen.live_of(world.worker(self.worker)) if seen.runs[run].input)


@dataclass(frozen=True)
class Converse(Voices):
    """(run, honest, kind, number): it asks, waits no more, or says what became of a turn."""

    actors = ("ask", "answer")

    async def do(self, world, seen, hand):
        runs, tokens, kinds, numbers = self.arrays(world)
        datas = [json.dumps(self.data(seen, *one)) for one in zip(runs, kinds, numbers, strict=True)]
        kinds = ["turn" if kind in ("ended", "refused") else kind for kind in kinds]
        none = [None] * len(runs)
        rows = await hand.fetch(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $6, $7)",
            runs, tokens, none, kinds, ["info"] * len(runs), none, datas,
        )  # fmt: skip
        return sorted({row[0] for row in rows})

    def data(self, seen, run, kind, number):
        if kind in ("ended", "refused"):
            job = seen.runs[run].job if run in seen.runs else 0
            turns = [turn.id for turn in seen.turns.values() if turn.job == job] or [0]
            return {"turn": turns[number % len(turns)], "state": kind}
        questions = [{"id": "a", "question": "Why?"}]
        return {"id": f"{kind[0]}{number}" if kind != "withdrawn" else f"p{number}", "questions": questions}


@dataclass(frozen=True)
class Answer(Step):
    interaction: int
    word: str
    refusals = ("LH105", "LH106", "LH107")
    actors = ("answer",)

    def possible(self, world, seen):
        return bool(seen.asked)

    def which(self, seen):
        return list(seen.asked.values())[self.interaction % len(seen.asked)]

    async def do(self, world, seen, hand):
        return await hand.fetchval("select leasehold.answer($1, $2)", self.which(seen).id, self.word)

    def foretell(self, world, seen):
        one = self.which(seen)
        if one.status in ("closed", "withdrawn", "expired"):
            return "LH107"
        return "answered" if one.status == "pending" or one.said == self.word else "LH106"

    def is_mute(self, world, seen):
        return self.which(seen).status != "pending"


@dataclass(frozen=True)
class Unanswered(Work):
    """End what nobody has answered in time: a `talker` is told no, a `free` one is cancelled."""

    actors = ("answer", "cancel")

    async def do(self, world, seen, hand):
        worker = self.who(world, hand)
        rows = await hand.fetch("select * from leasehold.expire_interactions($1, $2)", *worker.me)
        return sorted(row["interaction"] for row in rows if row["interaction"])
