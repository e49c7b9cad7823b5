"""Two hosts, a server of their own, a proxy before each daemon, jobs that flow, and an observer from outside."""

import asyncio
import json
import os
import secrets
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
from support.host import Host
from support.observer import Watch
from support.proxy import open_proxy

SHORT = {"lease": "4s", "renewal": "0.8s", "margin": "1.5s", "grace": "0.5s", "max_runs": 6, "poll": "2s"}
"""A lease that a test can outlast."""
LONG = "i=0; while [ $i -lt 6 ]; do echo line $i; i=$((i+1)); sleep 0.5; done"
WORDS = b"".join(b"line %d\n" % number for number in range(6))
VERDICTS = "('succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'interrupted', 'retry_scheduled')"
HANG = Path(__file__).parent / "hang"


class Side:
    """One host: its directory, its keeper, its way to the database, its daemon."""

    def __init__(self, host, proxy):
        self.host = host
        self.proxy = proxy
        self.daemon = None

    async def launch(self, *, ready=True, **settings):
        queues = f"default,{self.host.instance}"
        self.daemon = await self.host.launch(**{**SHORT, "queues": queues, **settings})
        if ready:
            await self.host.said("daemon_ready", pid=self.daemon.pid, within=90)  # a process may start late under load

    async def kill(self):
        self.daemon.kill()
        await self.daemon.wait()

    def signal(self, number):
        self.daemon.send_signal(number)

    def keeper(self, number):
        for pid in self.host.keeper_pids():
            os.kill(pid, number)

    async def leave(self):
        """Stop the daemon as an operator would."""
        if self.daemon.returncode is None:
            self.daemon.terminate()
            await asyncio.wait_for(self.daemon.wait(), 30)

    async def clear(self):
        if self.daemon is not None and self.daemon.returncode is None:
            self.daemon.send_signal(signal.SIGCONT)
            await self.kill()
        self.host.clear()


class Stage:
    def __init__(self, postgres, name, watch, mark):
        self.postgres = postgres
        self.name = name
        self.watch = watch
        self.mark = mark
        self.sides = []
        self.jobs = []

    @property
    def one(self):
        return self.sides[0]

    @property
    def two(self):
        return self.sides[1]

    @asynccontextmanager
    async def sql(self):
        """A connection that knows no proxy."""
        connection = await asyncpg.connect(self.postgres.dsn(self.name))
        try:
            yield connection
        finally:
            await connection.close()

    async def ask(self, query, *arguments):
        async with self.sql() as sql:
            return await sql.fetchval(query, *arguments)

    async def until(self, query, *arguments, within=60.0):
        """Wait until a query answers true."""
        deadline = asyncio.get_running_loop().time() + within
        async with self.sql() as sql:
            while not await sql.fetchval(query, *arguments):
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"not within {within} s: {query} {arguments}\n{await self.story(sql)}")
                await asyncio.sleep(0.03)

    async def story(self, sql):
        """What to read when a test fails."""
        rows = await sql.fetch(
            "select j.id, j.status, j.reason, j.losses, r.id as run, r.worker_id, r.status as run_status, r.outcome,"
            " r.reason as run_reason from leasehold.jobs j left join leasehold.runs r on r.job_id = j.id order by 1, 5"
        )
        logs = [side.host.log_file.read_text()[-6000:] for side in self.sides if side.host.log_file.exists()]
        return "\n".join([*(str(dict(row)) for row in rows), *logs])

    async def agent(self, name, script):
        async with self.sql() as sql:
            await sql.execute(
                "insert into leasehold.agents (name, command, env) values ($1, $2, $3)",
                name, ["sh", "-c", script], json.dumps(dict([self.mark.split("=")])),
            )  # fmt: skip

    async def insert(self, agent, count=1, queue="default"):
        async with self.sql() as sql:
            rows = await sql.fetch(
                "insert into leasehold.jobs (agent, prompt, queue, max_losses)"
                " select $1, 'go', $2, 20 from generate_series(1, $3) returning id",
                agent, queue, count,
            )  # fmt: skip
        self.jobs += [row["id"] for row in rows]
        return self.jobs[-1]

    async def worker(self, side):
        """The present life of a side."""
        return await self.ask("select max(id) from leasehold.workers where instance = $1", side.host.instance)

    async def flowing(self):
        """Wait until agents live on every host."""
        query = "select count(distinct worker_id) = $1 from leasehold.runs where status = 'running'"
        await self.until(query, len(self.sides))

    async def settled(self, within=80.0):
        """Every job has succeeded."""
        await self.until("select not exists (select from leasehold.jobs where finished_at is null)", within=within)

    async def judge(self):
        """What must hold at the end, whatever happened. Answers the observer's report."""
        await self.settled()
        async with self.sql() as sql:
            wrong = await sql.fetch("select id, status, reason from leasehold.jobs where status <> 'succeeded'")
            assert not wrong, f"{wrong}\n{await self.story(sql)}"
            assert not await sql.fetch("select id from leasehold.runs where ended_at is null or outcome is null")
            twice = await sql.fetch(
                "select r.id, count(e.seq) from leasehold.runs r left join leasehold.events e"
                f" on e.job_id = r.job_id and e.run_id = r.id and e.kind in {VERDICTS} group by 1 having count(e.seq) <> 1"
            )
            assert not twice, f"verdicts per run: {twice}\n{await self.story(sql)}"
            assert not await sql.fetch("select id from leasehold.jobs where attempts > 1"), "an attempt was used up"
            gaps = "select job_id from leasehold.events group by 1 having max(seq) <> count(*) or min(seq) <> 1"
            assert not await sql.fetch(gaps)
            await self._read_output(sql)
        for side in self.sides:
            await side.leave()
        assert [side.host.strays() for side in self.sides] == [[] for _ in self.sides]
        report = self.watch.report()
        assert not report["doubled"], report
        assert max(report["most"].values(), default=0) == 1, report
        assert report["strays"] == [], report
        return report

    async def _read_output(self, sql):
        rows = await sql.fetch(
            "select r.id, string_agg(o.bytes, ''::bytea order by o.byte_offset) as said from leasehold.runs r"
            " join leasehold.output o on o.run_id = r.id and o.stream = 'stdout'"
            " where r.agent = 'long' and r.outcome = 'succeeded' group by 1"
        )
        assert {row["said"] for row in rows} <= {WORDS}, f"output of a run was changed: {rows}"


@asynccontextmanager
async def open_stage(postgres, template, directory, hosts=("one", "two"), **settings):
    """Daemons that are ready, and nothing running yet."""
    name, mark = await postgres.database(template), f"OBSERVED={secrets.token_hex(8)}"
    async with AsyncExitStack() as stack:
        stage = Stage(postgres, name, stack.enter_context(Watch(mark)), mark)
        for each in hosts:
            proxy = await stack.enter_async_context(open_proxy(directory / f"p{each}", postgres.socket))
            host = Host(directory / each, proxy.dsn(postgres.dsn(name)), each)
            host.environment = {"PYTHONPATH": str(HANG)}
            stage.sides.append(Side(host, proxy))
            stack.push_async_callback(stage.sides[-1].clear)
        await stage.agent("long", LONG)
        await stage.agent("short", "sleep 0.4")
        await asyncio.gather(*(side.launch(**settings) for side in stage.sides))
        yield stage
