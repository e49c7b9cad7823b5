"""The world of one example: three connections, one clock, and who has met whom so far."""

import asyncio
import copy
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import timedelta

import asyncpg
from sql.machine.seen import look
from sql.people import NOON, Clock, register

TABLES = "jobs, heads, events, output, runs, workers, lanes, shares, arrivals, agents, tenants, queues"
RULES = "wakeups, holds, hosts, repositories, usage, usage_counters, budgets, sessions, threads, thread_moves, removals, turns, interactions, usage_days"
WORDS = "messages, artifacts, workspace_changes, job_marks, workspaces"
BEGINNING = f"""
truncate leasehold.{f"{TABLES}, {RULES}, {WORDS}".replace(", ", ", leasehold.")} restart identity;
select setval('leasehold.bell', 0);
update leasehold.cluster set timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8), closed_until = '-infinity', max_running = null;
update leasehold.retention set keep = case what when 'jobs' then interval '20 seconds' end, mark_at = '-infinity', mark_id = 0, pass_began_at = null;
insert into leasehold.agents (name, command, max_running, queue_timeout, account, budget_usd) values
  ('free', '{{true}}', null, null, 'shared', null), ('narrow', '{{true}}', 2, null, null, null),
  ('hasty', '{{true}}', null, '90 seconds', 'shared', 5);
insert into leasehold.agents (name, adapter, command, max_running, answer_timeout, while_waiting) values
  ('talker', 'codex', '{{true}}', 3, '50 seconds', 'release');
update leasehold.agents set answer_timeout = '50 seconds', on_unanswered = 'cancel' where name = 'free';
insert into leasehold.tenants (name, max_running) values ('limited', 2);
insert into leasehold.queues (name, max_running) values ('slow', 3);
"""


class World:
    """What the people of an example know. Everything else is asked of the database."""

    def __init__(self, loop, dsn):
        self.loop, self.dsn = loop, dsn
        self.run = loop.run_until_complete
        self.eye, *self.hands = self.run(self.connections(3))
        self.torn, self.counted = False, Counter()

    async def connections(self, many):
        return [await self.connection() for _ in range(many)]

    async def connection(self):
        """A host with too many processes lets a server fork a little later."""
        for _ in range(60):
            with suppress(asyncpg.ConnectionDoesNotExistError):
                return await asyncpg.connect(self.dsn, max_cacheable_statement_size=0)
            await asyncio.sleep(0.5)
        raise AssertionError("the server answers no more")

    async def begin(self):
        """An empty world at noon, with two workers."""
        self.counted["lives"] += 1
        self.clock, self.steady = Clock(self.eye, *self.hands), 0.0
        if self.torn:
            for hand in list(self.hands):
                await self.replace(hand)
        await self.clock.set(NOON)
        await self.eye.execute(BEGINNING)
        self.workers = [await register(self.eye, instance=name) for name in ("alpha", "beta")]
        self.runs, self.jobs, self.born, self.requests, self.reports = [], [], {}, {}, set()
        self.watched = {}  # (reaper, worker): the renewals it saw, and since when on the clock that cannot step

    async def pass_time(self, seconds):
        self.steady += seconds
        await self.clock.forward(seconds=seconds)

    async def step_clock(self, seconds):
        """The database's clock is a wall clock: it can be put forward or back."""
        await self.clock.set(self.clock.now + timedelta(seconds=seconds))

    async def close(self):
        for connection in (self.eye, *self.hands):
            await connection.close()

    # whom a number in a step means: 0 is the latest that lives

    def order(self, seen):
        self.workers.sort(key=seen.may_work)
        self.runs = sorted((run for run in self.runs if run["run_id"] in seen.runs), key=seen.speaks)
        self.jobs = [job for job in self.jobs if job in seen.jobs]
        self.jobs += sorted(job for job in seen.follow_ups if job in seen.jobs and job not in self.jobs)

    def number(self, worker):
        return self.workers[::-1].index(worker)

    def worker(self, number):
        return self.workers[-1 - number % len(self.workers)]

    def run_of(self, number):
        return self.runs[-1 - number % len(self.runs)]

    def job(self, number):
        return self.jobs[-1 - number % len(self.jobs)]

    def owner(self, run, seen):
        """Who holds this run, as far as the database knows."""
        row = seen.runs.get(run["run_id"])
        return next((worker for worker in self.workers if row and worker.id == row.worker), None)

    async def look(self):
        self.counted["looks"] += 1
        return await look(self.eye)

    @contextmanager
    def whole(self):
        """If what happens inside fails, nobody knows what the connections are at: the next example gets others."""
        self.torn = True
        yield
        self.torn = False

    async def do(self, step, seen, hand):
        """A step on one connection: its answer, or the SQLSTATE of its refusal."""
        try:
            return await step.do(self, seen, hand)
        except asyncpg.PostgresError as error:
            assert error.sqlstate in step.refusals, f"{step} was refused with {error.sqlstate}: {error}"
            return error.sqlstate

    async def alone(self, step, seen):
        return await self.do(step, seen, self.hands[0])

    async def beside(self, first, others, seen, ends):
        """Hold the transaction of `first` open while the others act one after the other; end it when somebody waits for it.

        Answers (step, answer) of what was committed, in the order of the commits.
        """
        open_, free = self.hands
        transaction = open_.transaction()
        await transaction.start()
        first_answer = await self.do(first, seen, open_)
        if refused(first_answer):
            ends = "rollback"
        done, ended = [], False
        for step in others:
            acting = asyncio.ensure_future(self.do(step, seen, free))
            if not ended and await self.waits(acting, free):
                ended = True
                await self.end(transaction, ends)
                if ends == "commit":
                    done.append((first, first_answer))
            done.append((step, await acting))
        if not ended:
            await self.end(transaction, ends)
            if ends == "commit":
                done.append((first, first_answer))
        return done

    async def waits(self, acting, hand):
        """Whether it waits for a lock. False: it is done."""
        pid = hand.get_server_pid()
        while not acting.done():
            if await self.eye.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid):
                return True
            await asyncio.wait([acting], timeout=0.001)
        return False

    async def end(self, transaction, ends):
        if ends == "commit":
            await transaction.commit()
        elif ends == "rollback":
            await transaction.rollback()
        else:
            await self.crash(self.hands[0])

    async def crash(self, hand):
        """The client dies in its transaction: its socket closes, and the server finds out."""
        pid = hand.get_server_pid()
        hand.terminate()
        while await self.eye.fetchval("select exists (select from pg_stat_activity where pid = $1)", pid):
            await asyncio.sleep(0.001)
        await self.replace(hand)

    async def replace(self, hand):
        """Another connection in its place, at the same time of day."""
        hand.terminate()
        [fresh] = await self.connections(1)
        self.hands[self.hands.index(hand)] = fresh
        self.clock.connections = (self.eye, *self.hands)
        await Clock(fresh).set(self.clock.now)

    async def together(self, first, second, seen):
        """Both at once; who comes first is the server's business."""
        answers = await asyncio.gather(
            *(self.do(step, seen, hand) for step, hand in zip((first, second), self.hands, strict=True))
        )
        return list(zip((first, second), answers, strict=True))


def refused(answer):
    return isinstance(answer, str) and (answer.startswith("LH") or answer == "40001")


def at(worker, hand):
    """The same worker, speaking on this connection."""
    there = copy.copy(worker)
    there.sql = hand
    return there
