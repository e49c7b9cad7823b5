"""The SQL room's fixtures: workers, logins of every role, a frozen clock, and refusals that leave nothing behind."""

import json
import secrets

import asyncpg
import pytest
from sql.invariants import assert_sane, footprint
from sql.people import NOON, Clock, as_user, register


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


@pytest.fixture
def sane(sql):
    return lambda: assert_sane(sql)


@pytest.fixture
def tell(sql):
    """append_events of (run, mark, kind, message, data)."""

    async def one(*rows, connection=None):
        return await (connection or sql).fetch(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
            [row[0]["run_id"] for row in rows], [row[0]["run_token"] for row in rows], [row[1] for row in rows],
            [row[2] for row in rows], ["info"] * len(rows), [None] * len(rows), [row[3] for row in rows],
            [json.dumps(row[4]) if row[4] is not None else None for row in rows],
        )  # fmt: skip

    return one


@pytest.fixture
async def run(worker, job):
    """A live run of a job with a thread."""
    await job(thread="t")
    return await worker.claim_one()
