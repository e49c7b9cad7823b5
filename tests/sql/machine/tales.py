"""Rules of several steps, for what chance alone would seldom try: deaths, sleepers, next lives, late ends, open transactions."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis.stateful import rule
from sql.machine import choices as any_
from sql.machine.asks import Cancel, Retry
from sql.machine.choices import few
from sql.machine.goes import Deregister, Reap, Watch
from sql.machine.lates import ReadLate, ShipLate
from sql.machine.lives import Lives
from sql.machine.money import Report
from sql.machine.seen import DONE
from sql.machine.speaks import Finish, Start, Unkillable
from sql.machine.works import Adopt, Claim, Register, Renew


class Tales(Lives):
    @rule(steps=st.lists(any_.pours, min_size=3, max_size=6))
    def pour(self, steps):
        """What a live run says and writes, as long as it does."""
        for step in steps:
            self.act(step)

    @rule(worker=few, slots=st.integers(1, 4), ends=st.lists(any_.ends, max_size=2))
    def work(self, worker, slots, ends):
        """A worker claims, starts the latest runs and ends them."""
        if not self.living():
            self.act(Register("alpha"))
        self.act(Claim(worker % len(self.living()), slots))
        for how in ends:
            self.act(Start(0))
            self.act(Finish(0, None, *how))

    @rule(number=few, reaper=few, stuck=st.booleans(), wakes=st.sampled_from(["never", "before", "after"]))
    def vanish(self, number, reaper, stuck, wakes):
        """A worker is heard of no more, while the others renew and one of them reaps it. It may only have slept."""
        gone = self.world.worker(number)
        if not self.living(gone):
            self.act(Register("beta"))
        reaper = self.living(gone)[reaper % len(self.living(gone))]
        if stuck:
            self.act(Unkillable(0))
        self.act(Reap(self.world.number(reaper), "all"))
        for _ in range(3):
            self.act(Watch(self.world.number(reaper)))
            self.time_passes(65, but=gone)
        if wakes == "before":
            self.awake(gone)
        for suspects in ("stale", "fair"):
            self.act(Reap(self.world.number(reaper), suspects))
        if wakes == "after":
            self.awake(gone)

    def awake(self, worker):
        number = self.world.number(worker)
        for step in (Renew(number, None), Claim(number, 1), Adopt(number, None), Finish(0, number), Deregister(number)):
            self.act(step)

    @rule(
        number=any_.many, asks=st.lists(any_.wakes | any_.enqueues, min_size=1, max_size=4), end=st.sampled_from("cfn")
    )
    def crowd(self, number, asks, end):
        """Several ask for what somebody has a key for: they join or wait; then it is cancelled, or it finishes, or neither."""
        held = [job for job in self.seen.jobs.values() if job.key and job.status not in DONE]
        if not held:
            return
        one = held[-1 - number % len(held)]
        for n, ask in enumerate(asks):
            self.act(replace(ask, tenant=one.tenant, key=one.key, agent=ask.agent if n % 2 else one.agent))
        runs = [run for run in self.world.runs if run["job_id"] == one.id and self.seen.speaks(run)]
        if end == "c" and one.id in self.world.jobs:
            self.act(Cancel(self.world.jobs[::-1].index(one.id)))
        elif end == "f" and runs:
            self.act(Finish(self.world.runs[::-1].index(runs[0])))

    @rule(first=any_.budgets, marks=st.lists(any_.mark, min_size=1, max_size=4), then=st.sampled_from([None, 1, 1000]))
    def spend(self, first, marks, then):
        """The latest run says what it costs while a budget of its agent or tenant changes."""
        if not any(self.seen.speaks(run) for run in self.world.runs):
            return
        row = self.seen.runs[self.world.run_of(0)["run_id"]]
        self.act(replace(first, name=row[first.scope]))
        for mark in marks:
            self.act(Report(((0, True, mark),)))
        self.act(Claim(0, 1))
        self.act(replace(first, name=row[first.scope], amount=then))

    @rule(steps=st.lists(any_.conversation, min_size=2, max_size=6), ends=any_.ends)
    def talk(self, steps, ends):
        """A job of an agent that can be spoken to, and a conversation until its run ends."""
        if not self.living():
            self.act(Register("alpha"))
        self.act(any_.Insert("talker", "default", "default", None, 2, 0, 1, 1000))
        self.act(Claim(0, 4))
        for step in steps:
            self.act(step)
        self.act(Finish(0, None, *ends))

    @rule(kept=any_.some)
    def sleep(self, kept):
        """A day, and with it the period of a budget. Who comes back takes over what it finds."""
        self.nobody_renews(24 * 3600)
        self.act(Register("alpha"))
        self.act(Adopt(0, kept))

    @rule(worker=few, boot=st.sampled_from(["boot-1", "boot-1", "boot-2"]), kept=any_.some, wrong=any_.forged)
    def restart(self, worker, boot, kept, wrong):
        """A daemon dies, and its next life adopts what its keeper still has."""
        old = self.seen.workers[self.world.worker(worker).id]
        self.act(Register(old.instance, old.keeper, boot))
        self.act(Adopt(0, kept, wrong))

    @rule(
        number=few,
        hows=st.lists(any_.ends, min_size=1, max_size=2),
        meanwhile=st.sampled_from([None, None, "asked again", "ran again"]),
        late=st.builds(ShipLate, st.just(0), any_.by, any_.place),
    )
    def arrive_late(self, number, hows, meanwhile, late):
        """A run was given up as lost; now its exit record is found, or two."""
        lost = [run for run in self.world.runs if self.seen.lost(run)]
        if not lost:
            return
        run = lost[-1 - number % len(lost)]
        if meanwhile == "asked again":
            job = self.world.jobs[::-1].index(run["job_id"])
            self.act(Cancel(job))
            self.act(Retry(job))
        elif meanwhile == "ran again":
            self.work(0, 4, [("interrupted", "stopped")] * 4)
        here = self.world.runs[::-1].index(run)
        self.act(ReadLate(((here, True),)))
        self.act(replace(late, run=here))
        for how in hows:
            self.act(Finish(here, late.by, *how))

    @rule(steps=any_.several, ends=st.sampled_from(["commit"] * 3 + ["rollback", "crash"]))
    def beside(self, steps, ends):
        """The first one's transaction is open while the others act; then it is committed, rolled back, or its client dies."""
        if all(step.possible(self.world, self.seen) for step in steps):
            with self.world.whole():
                first, *others = steps
                self.settle(self.run(self.world.beside(first, others, self.seen, ends)), steps)

    @rule(pair=st.one_of([st.tuples(*pair) for pair in any_.pairs]))
    def together(self, pair):
        """Both at the same time, really."""
        if all(step.possible(self.world, self.seen) for step in pair):
            with self.world.whole():
                self.settle(self.run(self.world.together(*pair, self.seen)), pair)
