"""Random lives of one database: every call of every client in any order, crashes, clock steps; the invariants after each step."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sql.invariants import LIMITS, assert_sane
from sql.machine import choices as any_
from sql.machine.asks import Cancel, Retry
from sql.machine.choices import few
from sql.machine.drain import drain
from sql.machine.goes import Deregister, Reap, Watch
from sql.machine.lates import ReadLate, ShipLate
from sql.machine.policy import check_policy
from sql.machine.speaks import Finish, Start, Unkillable
from sql.machine.step import UNKNOWN
from sql.machine.works import Adopt, Claim, Register, Renew
from sql.machine.world import refused


class Lives(RuleBasedStateMachine):
    """`world` and `history` are given to the subclass."""

    def __init__(self):
        super().__init__()
        self.run = self.world.run

    @initialize(first=st.lists(any_.inserts, min_size=1, max_size=3), slots=st.integers(0, 4))
    def begin(self, first, slots):
        """A world where there is something to do, and maybe done."""
        self.run(self.world.begin())
        self.seen = self.run(self.world.look())
        for step in (*first, Claim(worker=0, slots=slots)):
            self.act(step)

    def check(self, actors):
        """All that must hold now, and of the way from the last look to this one."""
        before, self.seen = self.seen, self.run(self.world.look())
        self.history.check(before, self.seen, actors)
        self.run(assert_sane(self.world.eye, leaving_out=LIMITS))
        return before

    def act(self, step):
        """One step, with nobody beside it: its answer is foretold."""
        if step.possible(self.world, self.seen):
            with self.world.whole():
                self.act_alone(step)

    def act_alone(self, step):
        foretold, free = step.foretell(self.world, self.seen), step.could_claim(self.world, self.seen)
        mute = step.is_mute(self.world, self.seen)
        answer = self.run(self.world.alone(step, self.seen))
        before = self.check(step.actors)
        agrees = getattr(step, "agrees", lambda answer, foretold: answer == foretold)
        assert foretold is UNKNOWN or agrees(answer, foretold), f"{step} answered {answer}, not {foretold}"
        if refused(answer) or mute:
            assert vars(before) == vars(self.seen), f"{step} was refused and changed something"
        if not refused(answer):
            assert step.holds(self.world, self.seen), f"{step} left something undone"
            step.learn(self.world, answer)
        check_policy(self.history.reasons, before, self.seen)
        assert answer != [] or not free, f"{step} got nothing, and nothing stands in the way of {free}"
        self.world.order(self.seen)

    @rule(step=any_.asks)
    def ask(self, step):
        self.act(step)

    @rule(step=any_.governs)
    def govern(self, step):
        self.act(step)

    @rule(step=any_.leases)
    def lease(self, step):
        self.act(step)

    @rule(step=any_.speaks)
    def speak(self, step):
        self.act(step)

    @rule(steps=st.lists(any_.pours, min_size=3, max_size=6))
    def pour(self, steps):
        """What a live run says and writes, as long as it does."""
        for step in steps:
            self.act(step)

    @rule(step=any_.finishes)
    def finish(self, step):
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
            self.wake(gone)
        for suspects in ("stale", "fair"):
            self.act(Reap(self.world.number(reaper), suspects))
        if wakes == "after":
            self.wake(gone)

    def wake(self, worker):
        number = self.world.number(worker)
        for step in (Renew(number, None), Claim(number, 1), Adopt(number, None), Finish(0, number), Deregister(number)):
            self.act(step)

    @rule(worker=few, boot=st.sampled_from(["boot-1", "boot-1", "boot-2"]), kept=any_.some, wrong=any_.forged)
    def restart(self, worker, boot, kept, wrong):
        """A daemon dies, and its next life adopts what its keeper still has."""
        old = self.seen.workers[self.world.worker(worker).id]
        self.act(Register(old.instance, old.keeper, boot))
        self.act(Adopt(0, kept, wrong))

    @rule(number=few, by=any_.by, hows=st.lists(any_.ends, min_size=1, max_size=2), place=any_.place, again=any_.forged)
    def arrive_late(self, number, by, hows, place, again):
        """A run was given up as lost; now its exit record is found, or two. Somebody may have had the job done again by then."""
        lost = [n for n, run in enumerate(self.world.runs[::-1]) if self.seen.lost(run)]
        if lost:
            run = lost[number % len(lost)]
            if again:
                job = self.world.jobs[::-1].index(self.world.run_of(run)["job_id"])
                self.act(Cancel(job))
                self.act(Retry(job))
            self.act(ReadLate(((run, True),)))
            self.act(ShipLate(run, by, place))
            for how in hows:
                self.act(Finish(run, by, *how))

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

    def settle(self, done, steps):
        self.check({actor for step in steps for actor in step.actors})
        for step, answer in done:
            if not refused(answer):
                step.learn(self.world, answer)
        self.world.order(self.seen)

    def living(self, but=None):
        return [worker for worker in self.world.workers if worker is not but and self.seen.may_work(worker)]

    @rule(seconds=st.sampled_from([1, 10, 30, 70, 130]))
    def all_renew(self, seconds):
        self.time_passes(seconds)

    def time_passes(self, seconds, but=None):
        """The workers that can renew do so before."""
        for worker in self.living(but):
            self.act(Renew(self.world.number(worker), None))
        self.nobody_renews(seconds)

    @rule(seconds=st.sampled_from([1, 10, 30, 70, 130]))
    def nobody_renews(self, seconds):
        self.run(self.world.pass_time(seconds))
        self.settle([], [])

    @rule(seconds=st.sampled_from([-300, -20, 20, 300]))
    def clock_steps(self, seconds):
        self.run(self.world.step_clock(seconds))
        self.settle([], [])

    def teardown(self):
        if hasattr(self, "seen") and not self.world.torn:
            with self.world.whole():
                drain(self.world)
