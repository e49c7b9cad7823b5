"""What tests of daemon and command line may use: hosts, agents, jobs, and ways to wait for them."""

import pytest
from leasehold.errors import NoPostgres
from support.host import Host
from support.memory import server_directory
from support.server import Postgres, away_from_here


@pytest.fixture
def host_at(tmp_path, dsn):
    """Make hosts; nothing of them survives the test."""
    hosts = []

    def make(name="one"):
        hosts.append(Host(tmp_path / name, dsn, name))
        return hosts[-1]

    yield make
    for host in hosts:
        host.clear()


@pytest.fixture
def host(host_at):
    return host_at()


@pytest.fixture
def agent(sql):
    """Describe an agent that runs a shell script."""

    async def make(name, script, **columns):
        columns = {"command": ["sh", "-c", script], **columns}
        names = ", ".join(columns)
        values = ", ".join(f"${number}" for number in range(2, len(columns) + 2))
        await sql.execute(
            f"insert into leasehold.agents (name, {names}) values ($1, {values})", name, *columns.values()
        )
        return name

    return make


@pytest.fixture
def insert(sql):
    """Insert a job, as anybody would."""

    async def do(agent, prompt="do it", **columns):
        columns = {"agent": agent, "prompt": prompt, **columns}
        values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        return await sql.fetchval(
            f"insert into leasehold.jobs ({', '.join(columns)}) values ({values}) returning id", *columns.values()
        )

    return do


STATUS = "select status from leasehold.jobs where id = $1"


@pytest.fixture
def ends(sql, eventually):
    """Wait until a job has this status."""

    async def wait(job, status, within=20.0):
        return await eventually(sql, STATUS, job, expected=status, within=within)

    return wait


@pytest.fixture
def written(sql):
    """All a job's last run wrote to a stream."""

    async def get(job, stream="stdout"):
        rows = await sql.fetch(
            "select byte_offset, bytes from leasehold.output where run_id ="
            " (select max(id) from leasehold.runs where job_id = $1) and stream = $2 order by byte_offset",
            job, stream,
        )  # fmt: skip
        at = 0
        for row in rows:
            assert row["byte_offset"] == at, "the output has a gap or an overlap"
            at += len(row["bytes"])
        return b"".join(row["bytes"] for row in rows)

    return get


@pytest.fixture(scope="session")
def own_server(tmp_path_factory):
    """A server of our own that may be hurt."""
    with server_directory(tmp_path_factory.mktemp("own")) as directory:
        server = Postgres(directory)
        try:
            away_from_here(server.prepare())
        except NoPostgres as error:
            pytest.skip(f"no server programs to hurt: {error}")
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def template(own_server):
    """The name of a database with our schema in it."""
    return away_from_here(own_server.migrated())


@pytest.fixture
def postgres(own_server):
    """Whatever a test did to the server, the next one finds it well."""
    yield own_server
    own_server.thaw()
    if own_server.process is None:
        own_server.start()
