"""People of the SQL room: workers that call the functions as the daemon does, logins of every role, and a clock that stands still."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

LEASE = timedelta(seconds=120)
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class Clock:
    """The frozen clock of one or more connections (G: leasehold.clock is the only source of time)."""

    def __init__(self, *connections):
        self.connections, self.now = connections, NOON

    async def set(self, now):
        self.now = now
        for connection in self.connections:
            await connection.execute("select set_config('leasehold.now', $1, false)", now.isoformat())

    async def forward(self, **step):
        await self.set(self.now + timedelta(**step))


class Worker:
    """One life of a daemon, seen from the database."""

    def __init__(self, sql, row, keeper="keeper-1"):
        self.sql, self.id, self.token, self.keeper = sql, row["worker"], row["token"], keeper

    @property
    def me(self):
        return self.id, self.token

    async def claim(self, slots=100):
        return await self.sql.fetch("select * from leasehold.claim($1, $2, $3)", *self.me, slots)

    async def claim_one(self):
        [run] = await self.claim(1)
        return run

    async def claim_job(self, job):
        """Claim until this job's run comes."""
        while True:
            run = await self.claim_one()
            if run["job_id"] == job:
                return run

    async def read(self, runs):
        return await self.sql.fetch("select * from leasehold.read_runs($1, $2, $3)", *self.me, ids(runs))

    async def renew(self, runs=(), lease=LEASE):
        return await self.sql.fetch("select * from leasehold.renew($1, $2, $3, $4)", *self.me, ids(runs), lease)

    async def start(self, run, identity=None):
        await self.sql.execute(
            "select leasehold.start_run($1, $2, $3, $4, $5)",
            *self.me,
            run["run_id"],
            run["run_token"],
            json.dumps(identity or {"pid": 7}),
        )

    async def finish(self, run, outcome="succeeded", reason=None, message=None, exit_code=None, result=None, sql=None):
        return await (sql or self.sql).fetchrow(
            "select * from leasehold.finish_run($1, $2, $3, $4, $5, $6, $7, exit_code => $8, result => $9)",
            *self.me,
            run["run_id"],
            run["run_token"],
            outcome,
            reason,
            message,
            exit_code,
            result,
        )

    async def fail(self, run, **more):
        return await self.finish(run, "failed", "exit_code", exit_code=3, **more)

    async def adopt(self, kept=(), lease=LEASE):
        rows = await self.sql.fetch(
            "select * from leasehold.adopt($1, $2, $3, $4, $5)",
            *self.me,
            ids(kept),
            [run["run_token"] for run in kept],
            lease,
        )
        return sorted((row["what"], row["run_id"]) for row in rows)

    async def watch(self):
        rows = await self.sql.fetch("select * from leasehold.watch_workers()")
        return {row["worker"]: (row["renewals"], row["expired"]) for row in rows}

    async def reap(self, seen=None):
        """Reap whoever is expired and still at the number of renewals seen (default: looked up just now)."""
        seen = seen if seen is not None else await self.watch()
        suspects = [(worker, renewals) for worker, (renewals, expired) in seen.items() if expired]
        return await self.sql.fetch(
            "select * from leasehold.reap($1, $2, $3, $4)",
            *self.me,
            [worker for worker, _ in suspects],
            [renewals for _, renewals in suspects],
        )

    async def deregister(self):
        await self.sql.execute("select leasehold.deregister_worker($1, $2)", *self.me)

    async def next_due(self):
        return await self.sql.fetchval("select leasehold.next_due($1)", self.id)

    async def say(self, *words):
        """append_events of (run, mark, message); answers the refused run ids."""
        return [
            row[0]
            for row in await self.sql.fetch(
                "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
                [run["run_id"] for run, _, _ in words],
                [run["run_token"] for run, _, _ in words],
                [mark for _, mark, _ in words],
                ["message"] * len(words),
                ["info"] * len(words),
                [None] * len(words),
                [message for _, _, message in words],
                [None] * len(words),
            )
        ]

    async def ship(self, *chunks):
        """append_output of (run, stream, offset, bytes); answers the refused run ids."""
        return [
            row[0]
            for row in await self.sql.fetch(
                "select * from leasehold.append_output($1, $2, $3, $4, $5)",
                [c[0]["run_id"] for c in chunks],
                [c[0]["run_token"] for c in chunks],
                [c[1] for c in chunks],
                [c[2] for c in chunks],
                [c[3] for c in chunks],
            )
        ]


def ids(runs):
    return [run if isinstance(run, int) else run["run_id"] for run in runs]


async def register(sql, instance="alpha", keeper="keeper-1", boot="boot-1", queues=None, lease=LEASE, capacity=100):
    row = await sql.fetchrow(
        "select * from leasehold.register_worker($1, 'host', $2, $3, '0.1', $4, $5, $6)",
        instance,
        boot,
        keeper,
        capacity,
        queues,
        lease,
    )
    return Worker(sql, row, keeper)


def as_user(dsn, user, password=None):
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    secret = f":{password}" if password else ""
    return urlunsplit(parts._replace(netloc=f"{user}{secret}@{place}"))


@pytest.fixture
async def hire(sql):
    """Register a worker: `await hire(instance="beta", queues=["slow"])`."""

    async def one(connection=None, **settings):
        return await register(connection or sql, **settings)

    return one


@pytest.fixture
async def worker(fixer, clock, hire):
    return await hire()


@pytest.fixture
async def fixer(sql):
    """The agent that most tests ask."""
    await sql.execute("insert into leasehold.agents (name, adapter, command) values ('fixer', 'command', '{true}')")
    return "fixer"


@pytest.fixture
async def clock(sql):
    """Noon of 2030-01-01 on the connection `sql`, until told otherwise."""
    clock = Clock(sql)
    await clock.set(NOON)
    return clock


@pytest.fixture
async def connect(dsn):
    """More superuser connections to the same database."""
    opened = []

    async def one():
        opened.append(await asyncpg.connect(dsn))
        return opened[-1]

    yield one
    for connection in opened:
        await connection.close()


@pytest.fixture
async def login(dsn, sql):
    """A connection as a login of its own: `await login("leasehold_producer", "acme")`."""
    opened, names = [], []

    async def one(role, *tenants, name=None):
        name = name or f"lh_test_{secrets.token_hex(4)}"
        if name not in names:
            password = secrets.token_hex(8)
            await sql.execute(f"create role {name} login password '{password}'")
            names.append(name)
            await sql.execute(f"grant {role} to {name}")
            opened.append(await asyncpg.connect(as_user(dsn, name, password)))
        for tenant in tenants:
            await sql.execute("insert into leasehold.tenant_logins (login, tenant) values ($1, $2)", name, tenant)
        return opened[-1]

    yield one
    for connection in opened:
        await connection.close()
    for name in names:
        await sql.execute(f"drop owned by {name}")
        await sql.execute(f"drop role {name}")


@pytest.fixture
def refused(sql):
    """`async with refused("LH003") as error:` the statement inside is refused with this SQLSTATE, a hint, and leaves nothing behind."""

    class Refused:
        def __init__(self, code, says="", hint=True):
            self.code, self.says, self.hint = code, says, hint

        async def __aenter__(self):
            self.before = await footprint(sql)
            return self

        async def __aexit__(self, kind, error, trace):
            assert isinstance(error, asyncpg.PostgresError), f"not refused, but {error!r}"
            assert error.sqlstate == self.code, f"{error.sqlstate}: {error}"
            assert self.says in str(error), str(error)
            assert not self.hint or error.hint, f"no hint: {error}"
            assert await footprint(sql) == self.before
            self.error = error
            return True

    return Refused


async def footprint(sql):
    """What a refused statement must not change."""
    return await sql.fetchval("""
        select jsonb_build_object(
          'jobs', (select count(*) from leasehold.jobs), 'heads', (select sum(seq) from leasehold.heads),
          'events', (select count(*) from leasehold.events), 'output', (select count(*) from leasehold.output),
          'arrivals', (select count(*) from leasehold.arrivals), 'agents', (select jsonb_agg(a) from leasehold.agents a),
          'status', (select jsonb_object_agg(id, status || updated_at::text) from leasehold.jobs),
          'runs', (select jsonb_object_agg(id, status || worker_id) from leasehold.runs),
          'workers', (select jsonb_object_agg(id, state || renewals) from leasehold.workers))""")


@pytest.fixture
def job(sql):
    """Insert a job and get its id: `await job(priority=5)`."""

    async def one(connection=None, **columns):
        columns = {"agent": "fixer", "prompt": "do it"} | columns
        places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        return await (connection or sql).fetchval(
            f"insert into leasehold.jobs ({', '.join(columns)}) values ({places}) returning id", *columns.values()
        )

    return one


@pytest.fixture
def look(sql):
    """One job as a row."""

    async def one(job):
        return await sql.fetchrow("select * from leasehold.jobs where id = $1", job)

    return one


@pytest.fixture
def story(sql):
    """The kinds of a job's events, in order; asserts that they are numbered 1, 2, 3, ..."""

    async def one(job):
        rows = await sql.fetch("select seq, kind from leasehold.events where job_id = $1 order by seq", job)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["kind"] for row in rows]

    return one


SANE = {
    "events have gaps": "select job_id from leasehold.events group by job_id having max(seq) <> count(*) or min(seq) <> 1",
    "heads differ from events": """select h.job_id from leasehold.heads h
        where h.seq <> (select count(*) from leasehold.events e where e.job_id = h.job_id)""",
    "jobs without a head": "select id from leasehold.jobs j where not exists (select from leasehold.heads h where h.job_id = j.id)",
    "two live runs of a job": "select job_id from leasehold.runs where ended_at is null group by job_id having count(*) > 1",
    "running without a live run": """select id from leasehold.jobs j where (status in ('running', 'waiting'))
        <> exists (select from leasehold.runs r where r.job_id = j.id and r.ended_at is null)""",
    "heads that fence another run": """select job_id from leasehold.heads h where (run_id, run_token) is distinct from
        (select (r.id, r.token) from leasehold.runs r where r.job_id = h.job_id and r.ended_at is null)
        and (run_id is not null or exists (select from leasehold.runs r where r.job_id = h.job_id and r.ended_at is null))""",
    "two live jobs of a key": """select concurrency_key from leasehold.jobs
        where concurrency_key is not null and status in ('queued', 'running', 'waiting')
        group by tenant, concurrency_key having count(*) > 1""",
    "attempts that do not add up": """select j.id from leasehold.jobs j where attempts + interruptions
        <> (select count(*) from leasehold.runs r where r.job_id = j.id and r.ended_at is not null)""",
    "attempt numbers that skip": """select job_id from leasehold.runs group by job_id
        having max(attempt) <> count(*) or min(attempt) <> 1""",
    "more attempts than allowed": "select id from leasehold.jobs where attempts > max_attempts",
    "agents over their limit": """select a.name from leasehold.agents a where a.max_running <
        (select count(*) from leasehold.runs r where r.agent = a.name and r.ended_at is null)""",
    "tenants over their limit": """select t.name from leasehold.tenants t where t.max_running <
        (select count(*) from leasehold.runs r where r.tenant = t.name and r.ended_at is null)""",
    "queues over their limit": """select q.name from leasehold.queues q where q.max_running <
        (select count(*) from leasehold.runs r where r.queue = q.name and r.ended_at is null)""",
    "queued work that no lane or arrival knows": """select j.id from leasehold.jobs j where j.status = 'queued' and j.due
        and not exists (select from leasehold.lanes l where l.lane = j.lane and l.active)
        and not exists (select from leasehold.arrivals a where a.lane = j.lane)""",
    "deferred without a holder or an arrival": """select j.id from leasehold.jobs j where j.status = 'deferred'
        and not exists (select from leasehold.jobs k where k.tenant = j.tenant and k.concurrency_key = j.concurrency_key
                         and k.status in ('queued', 'running', 'waiting'))
        and not exists (select from leasehold.arrivals a where a.tenant = j.tenant and a.key = j.concurrency_key)""",
}


async def assert_sane(sql):
    """The invariants that hold after every committed step."""
    parts = [
        f"select '{what}' as what, (array(select x::text from ({query}) x))[1:5] as which"
        for what, query in SANE.items()
    ]
    rows = await sql.fetch(" union all ".join(parts))
    wrong = {row["what"]: row["which"] for row in rows if row["which"]}
    assert not wrong, wrong


@pytest.fixture
def sane(sql):
    return lambda: assert_sane(sql)
