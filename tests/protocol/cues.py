"""Cues for the taps: what to hold, swallow or cut when it comes by, and the fact that it came by."""

import asyncio
from contextlib import suppress

PATIENCE = 20.0


class Cut(Exception):
    """The connection ends here."""


class Cue:
    """One order to a tap: the next `times` messages called `word` on this side are held, swallowed, or end the connection."""

    def __init__(self, word, side, act, times, when):
        self.word, self.side, self.act, self.left, self._when = word, side, act, times, when
        self.messages = []
        self._met, self._go = asyncio.Event(), asyncio.Event()
        self.passed = asyncio.Event()

    def wants(self, word, side, message):
        return self.left > 0 and (word, side) == (self.word, self.side) and self._when(message)

    async def meet(self, message):
        """True: pass it on; False: it never arrives. Raises Cut."""
        self.left -= 1
        self.messages.append(message)
        self._met.set()
        if self.act == "cut":
            raise Cut
        if self.act == "hold":
            await self._go.wait()
        return self.act == "hold"

    async def met(self, within=PATIENCE):
        """Wait until it has come by; answers the message."""
        await asyncio.wait_for(self._met.wait(), within)
        return self.messages[0]

    def release(self):
        """What is held goes on, and what comes later is not held."""
        self.left = 0
        self._go.set()


class Tap:
    """The common part: connections relayed in tasks that end with the tap."""

    def __init__(self):
        self.cues = []
        self.open = True
        self._writers = set()
        self._tasks = set()

    def cue(self, word, act, *, on="request", times=1, when=lambda _: True):
        self.cues.append(Cue(word, on, act, times, when))
        return self.cues[-1]

    def hold(self, word, **more):
        return self.cue(word, "hold", **more)

    def swallow(self, word, **more):
        return self.cue(word, "swallow", **more)

    def cut_at(self, word, **more):
        return self.cue(word, "cut", **more)

    def listens(self, word, side):
        return any(cue.left > 0 and (word, side) == (cue.word, cue.side) for cue in self.cues)

    async def through(self, word, side, message):
        for cue in self.cues:
            if cue.wants(word, side, message):
                return await cue.meet(message)
        return True

    def pass_on(self, message):
        """Say of what was held that it has been sent on."""
        for cue in self.cues:
            if any(message is held for held in cue.messages):
                cue.passed.set()

    def cut(self):
        """End every connection now; with `open` False new ones end at once as well."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def relay(self, client, to_client, dial, talk):
        """Both directions of one connection. What is held of a client that dies still arrives when it is released."""
        self._tasks.add(asyncio.current_task())
        writers = [to_client]
        self._writers.add(to_client)
        try:
            if self.open:
                server, to_server = await dial()
                writers.append(to_server)
                self._writers.add(to_server)
                pumps = [talk.requests(client, to_server), talk.answers(server, to_client)]
                await both(*(until_end(pump, writer) for pump, writer in zip(pumps, writers[::-1], strict=True)))
        except* (OSError, Cut):
            pass  # nobody listens there, or we were told to: this connection ends
        finally:
            for writer in writers:
                self._writers.discard(writer)
                writer.transport.abort()
            self._tasks.discard(asyncio.current_task())

    async def close(self):
        for cue in self.cues:
            cue.release()
        while self._tasks:  # each ends with its connections
            self.cut()
            await asyncio.wait(set(self._tasks), timeout=0.1)


async def both(*pumps):
    """Until both have ended, or one has failed."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pump) for pump in pumps]
    return [task.result() for task in tasks]


async def until_end(pump, writer):
    """One direction; its end is passed on, also that of somebody who was killed."""
    with suppress(OSError, asyncio.IncompleteReadError):
        await pump
    writer.close()


async def write(writer, data):
    """To somebody who may have left: then it is lost, as it would be on any wire."""
    if not writer.is_closing():
        writer.write(data)
        with suppress(OSError):
            await writer.drain()
