"""Random lives: several workers, every call in any order, time jumping; after each step the invariants hold."""

import asyncio

import asyncpg
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from leasehold.db.migrate import migrate
from sql.invariants import assert_sane
from sql.people import NOON, Clock, register

OUTCOMES = [
    ("succeeded", None), ("failed", "exit_code"), ("failed", "spawn_not_found"), ("blocked", "question"), ("timed_out", "total"),
    ("cancelled", "cancelled"), ("interrupted", "stopped"), ("lost", "keeper_lost"),
]  # fmt: skip
ALLOWED = {"LH010", "LH011", "LH012", "LH013", "LH015", "LH021", "LH022"}  # what a confused worker or user may be told


def test_no_order_of_calls_breaks_an_invariant(empty_dsn):
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete

    async def prepare():
        connection = await asyncpg.connect(empty_dsn)
        await migrate(connection)
        return connection

    sql = run(prepare())
    tables = "jobs, heads, events, output, runs, workers, lanes, arrivals, agents, tenants, queues"

    class Lives(RuleBasedStateMachine):
        @initialize()
        def world(self):
            self.clock = Clock(sql)
            run(sql.execute(f"truncate leasehold.{tables.replace(', ', ', leasehold.')} restart identity"))
            run(self.clock.set(NOON))
            run(
                sql.execute("""
                insert into leasehold.agents (name, command, max_running) values ('free', '{true}', null), ('narrow', '{true}', 2);
                insert into leasehold.tenants (name, max_running) values ('limited', 2);
                insert into leasehold.queues (name, max_running) values ('slow', 3)""")
            )
            self.workers = [run(register(sql, instance=name)) for name in ("alpha", "beta")]
            self.runs, self.jobs = [], []

        def call(self, coroutine):
            """Make a call that may be refused, for a reason of ours and without an effect."""
            try:
                return run(coroutine)
            except asyncpg.PostgresError as error:
                assert error.sqlstate in ALLOWED, f"{error.sqlstate}: {error}"
                return None

        @rule(
            agent=st.sampled_from(["free", "narrow"]), tenant=st.sampled_from(["default", "limited"]), queue=st.sampled_from(["default", "slow"]),
            key=st.sampled_from([None, None, "k", "l"]), attempts=st.integers(1, 3), ahead=st.sampled_from([0, 0, 30]), many=st.integers(1, 3),
        )  # fmt: skip
        def insert(self, agent, tenant, queue, key, attempts, ahead, many):
            rows = run(sql.fetch(
                "insert into leasehold.jobs (agent, tenant, queue, concurrency_key, max_attempts, max_losses, run_at, prompt)"
                " select $1, $2, $3, $4, $5, 2, leasehold.clock() + make_interval(secs => $6), 'x' from generate_series(1, $7) returning id",
                agent, tenant, queue, key, attempts, ahead, many,
            ))  # fmt: skip
            self.jobs += [row["id"] for row in rows]

        @rule(which=st.integers(0, 50), slots=st.integers(1, 4))
        def claim(self, which, slots):
            worker = self.workers[which % len(self.workers)]
            for found in self.call(worker.claim(slots)) or []:
                self.runs.append((worker, found))

        @rule(which=st.integers(0, 50), outcome=st.sampled_from(OUTCOMES), by_another=st.booleans())
        def finish(self, which, outcome, by_another):
            if self.runs:
                worker, found = self.runs[which % len(self.runs)]
                worker = self.workers[which % len(self.workers)] if by_another else worker
                answer = self.call(worker.finish(found, *outcome))
                assert answer is None or answer["disposition"] in ("settled", "repeated", "late")

        @rule(which=st.integers(0, 50))
        def speak(self, which):
            if self.runs:
                worker, found = self.runs[which % len(self.runs)]
                self.call(worker.start(found))
                run(worker.say((found, which, "a"), (found, which, "b"), (found, None, "c")))
                run(worker.ship((found, "stdout", 0, b"x")))

        @rule(which=st.integers(0, 50), ours=st.booleans())
        def renew(self, which, ours):
            worker = self.workers[which % len(self.workers)]
            answer = self.call(worker.renew([found for owner, found in self.runs if owner is worker or not ours]))
            assert answer is None or answer[0]["what"] == "renewed"

        @rule(which=st.integers(0, 50), function=st.sampled_from(["cancel", "cancel", "retry"]))
        def ask(self, which, function):
            if self.jobs:
                self.call(sql.fetchval(f"select leasehold.{function}($1)", self.jobs[which % len(self.jobs)]))

        @rule(which=st.integers(0, 50), instance=st.sampled_from(["alpha", "beta", "gamma"]), keeps=st.booleans())
        def live_again(self, which, instance, keeps):
            successor = run(register(sql, instance=instance))
            kept = [found for _, found in self.runs] if keeps else []
            answer = run(successor.adopt(kept))
            adopted = {found for what, found in answer if what == "adopted"}
            self.runs += [(successor, found) for _, found in self.runs if found["run_id"] in adopted]
            self.workers = [*self.workers, successor][-4:]

        @rule(which=st.integers(0, 50))
        def reap(self, which):
            self.call(self.workers[which % len(self.workers)].reap())

        @rule(which=st.integers(0, 50))
        def leave(self, which):
            self.call(self.workers[which % len(self.workers)].deregister())

        @rule(seconds=st.sampled_from([1, 10, 50, 130]))
        def time_passes(self, seconds):
            run(self.clock.forward(seconds=seconds))

        @rule(paused=st.booleans())
        def pause(self, paused):
            run(sql.execute(f"select leasehold.{'pause' if paused else 'resume'}_agent('narrow')"))

        @invariant()
        def all_is_well(self):
            run(assert_sane(sql))

        def teardown(self):
            """Whatever happened: in the end everything queued can be brought to its end, nothing is stranded."""
            run(sql.execute("select leasehold.resume_agent('narrow')"))
            for _ in range(60):
                run(self.clock.forward(hours=1))
                worker = run(register(sql, instance="last"))
                run(worker.adopt())
                run(worker.reap())
                for found in run(worker.claim()):
                    run(worker.finish(found))
                if not run(sql.fetchval("select count(*) from leasehold.jobs where finished_at is null")):
                    break
            run(assert_sane(sql))
            assert run(sql.fetchval("select count(*) from leasehold.jobs where finished_at is null")) == 0

    try:
        run_state_machine_as_test(
            Lives,
            settings=settings(
                max_examples=150,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        run(sql.close())
        loop.close()
