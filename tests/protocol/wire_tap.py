"""A tap between daemon and keeper: hears every message, and holds, swallows or cuts on cue."""

import asyncio
import json
from contextlib import asynccontextmanager

from protocol.cues import Tap, write

LINE = 1 << 24


class WireTap(Tap):
    """Listens in the keeper's place. `requests` is all that daemons have asked, in order."""

    def __init__(self, keeper_socket):
        super().__init__()
        self._keeper_socket = str(keeper_socket)
        self.requests = []

    def asked(self, op, **words):
        """The requests of this kind that came by."""
        return [each for each in self.requests if each["op"] == op and words.items() <= each.items()]

    async def serve(self, client, to_client):
        async def dial():
            return await asyncio.open_unix_connection(self._keeper_socket, limit=LINE)

        await self.relay(client, to_client, dial, Talk(self))


class Talk:
    """One connection."""

    def __init__(self, tap):
        self._tap = tap
        self._ops = {}

    async def requests(self, client, to_keeper):
        async for line in client:
            message = json.loads(line)
            self._ops[message["id"]] = message["op"]
            self._tap.requests.append(message)
            if await self._tap.through(message["op"], "request", message):
                await write(to_keeper, line)
                self._tap.pass_on(message)

    async def answers(self, keeper, to_client):
        async for line in keeper:
            message = json.loads(line)
            word = message.get("event") or self._ops.get(message.get("id"))
            if await self._tap.through(word, "answer", message):
                await write(to_client, line)


@asynccontextmanager
async def open_wire_tap(path, keeper_socket):
    """A tap that listens at `path`; gone afterwards."""
    tap = WireTap(keeper_socket)
    server = await asyncio.start_unix_server(tap.serve, path, limit=LINE)
    try:
        yield tap
    finally:
        server.close()
        await tap.close()
