"""A tap between daemon and Postgres: knows which of our functions is called, and holds, swallows or cuts on cue.

It reads just enough of the wire protocol: statements are named when they are parsed, and called when they are bound.
An answer is met once it is whole, and so after its commit. `upstream` may be changed: that is a failover's new address.
"""

import asyncio
import re
import shutil
import struct
import tempfile
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

from protocol.cues import Tap, write

FUNCTION = re.compile(rb"leasehold\.(\w+)\(")
READY = b"Z\0\0\0\5"


class SqlTap(Tap):
    """Listens in the server's place. `calls` counts the calls that came by."""

    def __init__(self, upstream):
        super().__init__()
        self.upstream = upstream
        self.calls = []

    async def serve(self, client, to_client):
        await self.relay(client, to_client, lambda: dial(self.upstream), Talk(self))


class Talk:
    """One connection."""

    def __init__(self, tap):
        self._tap = tap
        self._statements = {}
        self._calling = None

    async def requests(self, client, to_server):
        await write(to_server, await startup(client))
        while True:
            head = await client.readexactly(5)
            body = await client.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            if await self._passes(head[:1], body):
                await write(to_server, head + body)

    async def _passes(self, kind, body):
        if kind == b"P":
            name, query = body.split(b"\0")[:2]
            found = FUNCTION.search(query)
            self._statements[name] = found[1].decode() if found else None
            self._calling = None  # what is answered next is a description, and it does not end as a call does
        elif kind == b"B":
            self._calling = self._statements.get(body.split(b"\0")[1])
            self._tap.calls.append(self._calling)
            return await self._tap.through(self._calling, "request", body)
        return True

    async def answers(self, server, to_client):
        held = b""
        while data := await server.read(1 << 16):
            held += data
            if self._tap.listens(self._calling, "answer") and held[-6:-1] != READY:
                continue  # the rest of the answer, and with it the commit, is still to come
            if await self._tap.through(self._calling, "answer", held):
                await write(to_client, held)
            held = b""


def with_rows(answer):
    """For `when`: the answer of a call that found something."""
    return b"SELECT 0\0" not in answer and b"SELECT " in answer


async def startup(client):
    """The first message has a length but no kind."""
    size = await client.readexactly(4)
    return size + await client.readexactly(struct.unpack("!I", size)[0] - 4)


async def dial(dsn):
    """A bare connection to where a DSN points."""
    parts = urlsplit(dsn)
    words = {name: values[0] for name, values in parse_qs(parts.query).items()}
    host, port = words.get("host", parts.hostname), words.get("port", parts.port or 5432)
    if str(host).startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def open_sql_tap(dsn):
    """A tap in front of the server of `dsn`, and the DSN that leads through it."""
    tap = SqlTap(dsn)
    sockets = tempfile.mkdtemp(prefix="tap-")  # a socket's path must be short
    server = await asyncio.start_unix_server(tap.serve, f"{sockets}/.s.PGSQL.5432")
    parts = urlsplit(dsn)
    login = parts.netloc.rpartition("@")[0]
    try:
        yield tap, urlunsplit(parts._replace(netloc=f"{login}@" if login else "", query=f"host={sockets}&port=5432"))
    finally:
        server.close()
        await tap.close()
        shutil.rmtree(sockets)
