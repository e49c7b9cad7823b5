"""What runs cost: reports that may be repeated, counters that only grow, budgets, and the sum of it all once more in Python."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass

from sql.machine.lates import awaited
from sql.machine.speaks import Speak, Voices
from sql.machine.step import Step


def report(mark):
    """What stands at this place of a stdout: an amount, a counter of the run or of its conversation, tokens without a price."""
    amount = mark + 1
    what = [
        {"cost_usd": amount}, {"cost_usd": amount, "counter": "run"}, {"cost_usd": amount, "counter": "session"}, {"input_tokens": amount},
    ]  # fmt: skip
    return what[mark % 4] | {"mark": mark}


@dataclass(frozen=True)
class Report(Voices):
    """(run, honest, mark), among its events. One is as honest as the other, so that the answer says who was heard."""

    actors = ("report",)

    async def do(self, world, seen, hand):
        runs, tokens, marks = self.arrays(world)
        kinds, words, none = ["usage"] * len(runs), ["info"] * len(runs), [None] * len(runs)
        data = [json.dumps(report(mark)) for mark in marks]
        rows = await hand.fetch(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $6, $7)", runs, tokens, marks, kinds, words, none, data
        )  # fmt: skip
        return sorted(row[0] for row in rows)

    def learn(self, world, answer):
        world.reports |= {(run["run_id"], mark) for run, mark in self.voices(world) if run["run_id"] not in answer}


@dataclass(frozen=True)
class Converse(Speak):
    """The run is in this session of its backend: the next one of its job goes on with it."""

    async def do(self, world, seen, hand):
        await hand.execute("select leasehold.report_session($1, $2, $3, $4, 'there')", *self.said(world, seen))


@dataclass(frozen=True)
class Tell(Speak):
    """What one run used, beside its events: of a lost one it may still be told."""

    mark: int = 0
    actors = ("report",)

    async def do(self, world, seen, hand):
        await hand.execute(
            "select leasehold.report_usage($1, $2, $3, $4, array[$5::bigint], array[$6::jsonb])",
            *self.said(world, seen), self.mark, json.dumps(report(self.mark)),
        )  # fmt: skip

    def foretell(self, world, seen):
        return None if awaited(seen, self.whose(world)) else super().foretell(world, seen)

    def learn(self, world, answer):
        world.reports.add((self.whose(world)["run_id"], self.mark))


@dataclass(frozen=True)
class Budget(Step):
    """Set, raised, lowered, or taken away. Answers what of it is spent."""

    scope: str
    name: str
    period: str
    amount: int | None
    actors = ("budget",)

    async def do(self, world, seen, hand):
        if self.amount is None:
            await hand.execute(
                "delete from leasehold.budgets where (scope, name, period) = ($1, $2, $3)", self.scope, self.name, self.period
            )  # fmt: skip
            return None
        return await hand.fetchval(
            "insert into leasehold.budgets (scope, name, period, amount_usd) values ($1, $2, $3, $4)"
            " on conflict (scope, name, period) do update set amount_usd = $4 returning spent_usd",
            self.scope, self.name, self.period, self.amount,
        )  # fmt: skip

    def foretell(self, world, seen):
        if self.amount is None:
            return None
        known = seen.budgets.get(f"{self.scope}:{self.name}:{self.period}")
        rows = (
            row
            for row in (*seen.usage.values(), *seen.days.values())
            if row[self.scope] == self.name and (row.today or self.period == "total")
        )
        return known.spent if known else sum(row.cost or 0 for row in rows)


def check_money(world, seen):
    """Each run cost what was reported of it, each report once; a live run that has passed its budget is to be told."""
    reports = defaultdict(set)
    for run, mark in world.reports:
        if run in seen.runs:
            reports[run].add(mark)
    used, top = defaultdict(Counter), defaultdict(dict)
    for row in seen.usage.values():
        used["run", row.run].update(cost=row.cost or 0, unpriced=row.cost is None, tokens=row.tokens)
        used["conversation", seen.runs[row.run].conversation].update(cost=row.cost or 0)
    for run, marks in reports.items():
        for mark in marks:
            said = report(mark)
            whose = {None: (run, mark), "run": (run, "run"), "session": "session"}[said.get("counter")]
            tops = top[seen.runs[run].conversation]
            tops[whose] = max(tops.get(whose, 0), said.get("cost_usd", 0))
    for run in seen.runs.values():
        said, was = [report(mark) for mark in reports[run.id]], used["run", run.id]
        unpriced = sum("cost_usd" not in one for one in said)
        assert was["unpriced"] == run.unpriced == unpriced, (
            f"{unpriced} unpriced reports of run {run.id}: {was}, {run.unpriced}"
        )
        assert was["tokens"] == (run.tokens or 0) == sum(one.get("input_tokens", 0) for one in said), (
            f"tokens of run {run.id}"
        )
        assert was["cost"] == (run.cost or 0), f"run {run.id} cost {run.cost}, its reports say {was}"
        spent, right = used["conversation", run.conversation]["cost"], sum(top[run.conversation].values())
        assert spent == right, f"conversation {run.conversation} cost {spent}, it was said: {right}"
        most = seen.agents[run.agent].budget
        assert not run.live or run.passed == (most is not None and was["cost"] > most), f"run {run.id} of {most}: {was}"
