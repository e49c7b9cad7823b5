"""What every test may use: a real server, a database of its own, and one way to wait."""

import asyncio
import os
import secrets
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from capabilities.strict import pytest_collection_modifyitems  # noqa: F401 -- pytest finds it here
from leasehold.db.embedded import open_postgres
from leasehold.db.migrate import migrate
from support.memory import server_directory

TEMPLATE = f"leasehold_test_{secrets.token_hex(4)}"
COPY = "" if "LEASEHOLD_TEST_DSN" in os.environ else "strategy file_copy"
"""Nearly twice as fast where a checkpoint costs nothing."""


def database(server: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """DSN of a server for this session: LEASEHOLD_TEST_DSN, else an embedded one. Holds a migrated template.

    It lives in a thread with a loop of its own, because every test has another loop.
    """
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found = {}

    async def serve():
        with server_directory(tmp_path_factory.mktemp("pg")) as directory:
            async with server_for(directory) as dsn:
                await make_template(dsn)
                found["dsn"] = dsn
                ready.set()
                await stop.wait()
                await drop(dsn, TEMPLATE)

    def live():
        try:
            loop.run_until_complete(serve())
        except Exception as error:
            found["error"] = error
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=live)
    thread.start()
    ready.wait()
    if "error" in found:
        raise found["error"]
    yield found["dsn"]
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@asynccontextmanager
async def server_for(directory: Path):
    if given := os.environ.get("LEASEHOLD_TEST_DSN"):
        yield given
        return
    async with open_postgres(directory / "data", durable=False, max_connections=250) as dsn:
        yield dsn


async def make_template(dsn):
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"create database {TEMPLATE}")
    await admin.close()
    connection = await asyncpg.connect(database(dsn, TEMPLATE))
    await migrate(connection)
    await connection.close()


async def drop(dsn, name):
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"drop database if exists {name} with (force)")
    await admin.close()


@pytest.fixture
async def dsn(server):
    """A fresh, migrated database, dropped afterwards."""
    name = f"{TEMPLATE}_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"create database {name} template {TEMPLATE} {COPY}")
    await admin.close()
    yield database(server, name)
    await drop(server, name)


@pytest.fixture
async def empty_dsn(server):
    """A fresh database without our schema."""
    name = f"{TEMPLATE}_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"create database {name}")
    await admin.close()
    yield database(server, name)
    await drop(server, name)


@pytest.fixture
async def sql(dsn):
    """What any client has: a plain connection and SQL."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
def eventually():
    """Wait for a query to answer `expected`: the one way in which tests here wait for the database."""

    async def wait(sql, query, *arguments, expected, within=20.0):
        found, deadline = None, asyncio.get_running_loop().time() + within
        while (found := await sql.fetchval(query, *arguments)) != expected:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"still {found!r}, not {expected!r}, after {within} s: {query} {arguments}")
            await asyncio.sleep(0.02)
        return found

    return wait
