"""What a live agent is told through its stdin: each key once, in order, waiting for no reader. If it fails, one run hears no more.

The pipe has no name: nothing that an agent does to its directory leads anywhere, and a write touches no file system.
"""

import os
import select

from leasehold.keeper.protocol import RefusedError

PENDING = 32 << 20
"""Bytes that wait for one agent to read; a text that would make it more is refused."""
ALL_PENDING = 256 << 20
"""The same, of all agents together."""
KEYS = 100_000
"""Keys that are remembered of one run."""
KEY_LENGTH = 256
"""Characters of the longest key."""
TURN = 1 << 20
"""Bytes for one agent before the others, the deadlines and the daemon have their turn."""
BITE = 64 << 10


class Feeds:
    """The pipes that somebody has to read before they take more; readable to a selector when one of them takes more."""

    def __init__(self) -> None:
        self._ready = select.epoll()
        self._waiting: dict[int, Feed] = {}
        self.pending = 0

    def fileno(self) -> int:
        """For a selector."""
        return self._ready.fileno()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        for writer, _ in self._ready.poll(0):
            self._waiting[writer].flush()

    def wait(self, writer: int, feed: "Feed") -> None:
        """Something is left: `feed` wants to know when its pipe takes more, or breaks."""
        if writer not in self._waiting:
            self._waiting[writer] = feed
            self._ready.register(writer, select.EPOLLOUT)

    def rest(self, writer: int) -> None:
        """Nothing is left. Before the descriptor is closed."""
        if self._waiting.pop(writer, None) is not None:
            self._ready.unregister(writer)


class Feed:
    """One run's stdin. Its keys are remembered for as long as the run is."""

    def __init__(self, writer: int, feeds: Feeds) -> None:
        os.set_blocking(writer, False)
        self._writer: int | None = writer
        self._feeds = feeds
        self._held = bytearray()
        self._closing = False
        self.keys: set[str] = set()

    def take(self, key: str, raw: bytes) -> bool:
        """Owe the agent `raw`; False: it was taken before. Raises RefusedError."""
        if key in self.keys:
            return False
        if self._closing or self._writer is None:
            raise RefusedError("closed", "its stdin is closed")
        if len(self.keys) >= KEYS:
            raise RefusedError("too_many", f"it was told {KEYS} things already")
        if len(self._held) + len(raw) > PENDING or self._feeds.pending + len(raw) > ALL_PENDING:
            raise RefusedError("full", f"it does not read: {len(self._held)} bytes wait for it")
        self.keys.add(key)
        self._held += raw
        self._feeds.pending += len(raw)
        self.flush()
        if self._writer is None:
            self.keys.discard(key)  # nobody reads any more, so this was not heard
            raise RefusedError("closed", "nobody reads its stdin any more")
        return True

    def flush(self) -> None:
        """Write what the pipe takes. Nobody reads it any more: what is left is dropped."""
        turn = TURN
        try:
            while self._writer is not None and self._held and turn > 0:
                written = os.write(self._writer, bytes(memoryview(self._held)[:BITE]))
                del self._held[:written]
                self._feeds.pending -= written
                turn -= written
        except BlockingIOError:
            pass
        except OSError:
            self.drop()
            return
        self._watch()

    def _watch(self) -> None:
        if self._writer is not None and self._held:
            self._feeds.wait(self._writer, self)
        elif self._closing:
            self.drop()
        elif self._writer is not None:
            self._feeds.rest(self._writer)

    def close(self) -> None:
        """The end of the input, behind all that was taken."""
        self._closing = True
        self._watch()

    def drop(self) -> None:
        """The end of the input, now."""
        self._feeds.pending -= len(self._held)
        self._held.clear()
        if self._writer is not None:
            self._feeds.rest(self._writer)
            os.close(self._writer)
            self._writer = None
