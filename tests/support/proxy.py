"""Stands between a daemon and Postgres: cuts, delays, goes deaf, and swallows the answer to a commit on cue."""

import asyncio
from contextlib import asynccontextmanager

PORT = 5432
CHUNK = 256 * 1024


class Frames:
    """One direction of the protocol, cut into messages: (type, body)."""

    def __init__(self, *, greeting):
        self._held = b""
        self._greeting = greeting  # a client's first message has no type

    def feed(self, data):
        self._held += data
        while True:
            head = 0 if self._greeting else 1
            if len(self._held) < head + 4:
                return
            size = head + int.from_bytes(self._held[head : head + 4], "big")
            if len(self._held) < size:
                return
            message, self._held = self._held[:size], self._held[size:]
            yield message[:head], message[head + 4 :]
            self._greeting = False


class Statements:
    """Which statement a client is about to execute, by the names it gave them."""

    def __init__(self):
        self._frames = Frames(greeting=True)
        self._texts = {}

    def executed(self, data):
        """Texts of the statements that these bytes execute."""
        for kind, body in self._frames.feed(data):
            if kind == b"P":
                name, text = body.split(b"\0", 2)[:2]
                self._texts[name] = text.decode()
            elif kind == b"B":
                yield self._texts.get(body.split(b"\0", 2)[1], "")
            elif kind == b"Q":
                yield body.rstrip(b"\0").decode()


class Line:
    """One client's connection and its other half."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.client = client
        self.server = server
        self.dead = False  # nothing passes any more, and nobody says so
        self.swallowing = None
        self.says, self.hears = Statements(), Frames(greeting=False)

    async def up(self):
        while data := await self.client[0].read(CHUNK):
            await self.proxy.pause()
            for text in self.says.executed(data):
                self.swallowing = self.swallowing or self.proxy.take_cue(text)
            if not self.dead:
                self.server[1].write(data)
                await self.server[1].drain()

    async def down(self):
        while data := await self.server[0].read(CHUNK):
            await self.proxy.pause()
            done = [kind for kind, _ in self.hears.feed(data) if kind == b"Z"]
            if self.swallowing is not None:
                if done:  # it is committed, and nobody shall know
                    self.swallowing.set()
                    return
            elif not self.dead:
                self.client[1].write(data)
                await self.client[1].drain()

    async def live(self):
        halves = [asyncio.create_task(self.up()), asyncio.create_task(self.down())]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            self.cut()

    def cut(self):
        self.client[1].transport.abort()
        if self.dead:  # the server is not told that its client has given up
            self.proxy.ghosts.append(self.server[1])
        else:
            self.server[1].transport.abort()


class Proxy:
    """Listens on a socket of its own and knows all its lines."""

    def __init__(self, directory, upstream):
        self.directory = directory
        self.upstream = upstream
        self.lines = set()
        self.ghosts = []
        self.delay = 0.0
        self.deaf = False
        self._cues = []
        self._server = None

    @property
    def socket(self):
        return self.directory / f".s.PGSQL.{PORT}"

    def dsn(self, dsn):
        """The same database, by way of this proxy."""
        return dsn.partition("host=")[0] + f"host={self.directory}&port={PORT}"

    async def listen(self):
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.socket, limit=CHUNK)

    async def refuse(self):
        """Cut every line, take no new one: the way is gone, and everybody is told."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self):
        """Cut every line; new ones are welcome."""
        for line in list(self.lines):
            line.cut()

    def go_deaf(self):
        """Half-open: what there is stays open and carries nothing; what comes is accepted and hears nothing."""
        self.deaf = True
        for line in self.lines:
            line.dead = True

    def hear_again(self):
        """New lines work. The old ones stay as dead as they are: nobody ever tells their two ends."""
        self.deaf = False

    def swallow(self, needle):
        """The next statement with this text is executed, its answer is lost, the line is cut. Answers an Event: it happened."""
        happened = asyncio.Event()
        self._cues.append((needle, happened))
        return happened

    def take_cue(self, text):
        for cue in self._cues:
            if cue[0] in text:
                self._cues.remove(cue)
                return cue[1]
        return None

    async def pause(self):
        if self.delay:
            await asyncio.sleep(self.delay)

    async def _accept(self, reader, writer):
        if self.deaf:
            await self._ignore(reader, writer)
            return
        try:
            server = await asyncio.open_unix_connection(self.upstream, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        line = Line(self, (reader, writer), server)
        if self._server is None or self.deaf:  # it was under way when the others were cut
            line.dead = self.deaf
            line.cut()
            return
        self.lines.add(line)
        try:
            await line.live()
        except OSError:
            line.cut()
        finally:
            self.lines.discard(line)

    async def _ignore(self, reader, writer):
        try:
            while await reader.read(CHUNK):
                pass
        except OSError:
            pass
        writer.transport.abort()

    async def close(self):
        await self.refuse()
        for ghost in self.ghosts:
            ghost.transport.abort()
        for _ in range(200):
            if not self.lines:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_proxy(directory, upstream):
    """A proxy at work beside the block."""
    directory.mkdir(parents=True, exist_ok=True)
    proxy = Proxy(directory, upstream)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
