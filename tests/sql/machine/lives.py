"""Random lives of one database: every call of every client in any order, crashes, clock steps; the invariants after each step."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sql.invariants import LIMITS, assert_sane
from sql.machine import choices as any_
from sql.machine.drain import drain
from sql.machine.money import check_money
from sql.machine.policy import check_keys, check_policy
from sql.machine.step import UNKNOWN
from sql.machine.works import Claim, Renew
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
        self.history.check(before, self.seen, set(actors))
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
        check_keys(before, self.seen, step.actors)
        check_money(self.world, self.seen)
        self.world.order(self.seen)
        assert self.seen.jobs.keys() == set(self.world.jobs), f"{step} made a job that nobody asked for"

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

    @rule(step=any_.conversation)
    def converse(self, step):
        self.act(step)

    @rule(step=any_.finishes)
    def finish(self, step):
        self.act(step)

    def settle(self, done, steps):
        self.check({actor for step in steps for actor in step.actors})
        for step, answer in done:
            if not refused(answer):
                step.learn(self.world, answer)
        check_money(self.world, self.seen)
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
