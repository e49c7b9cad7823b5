"""JSON lines over the keeper's socket: numbered requests with a time limit, pushes in between. If it fails, KeeperAway."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    Event,
    IncompleteRead,
    Lock,
    fail_after,
)
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.loops import background

ANSWER = 5.0
"""Seconds the keeper has to answer a request."""
LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of the longest answer: a list of very many runs."""
SOCKET_PATH = 100
"""Bytes of a socket's name that the kernel takes; a longer one is reached through its directory's descriptor."""

Push = Callable[[dict[str, Any]], None]
BROKEN = (OSError, BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)


class Wire:
    """One connection. When it ends, every waiting request ends with KeeperAway."""

    def __init__(self, stream: SocketStream, push: Push) -> None:
        self._stream = stream
        self._push = push
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting: dict[int, Event] = {}
        self._writing = Lock()
        self.closed = Event()

    async def ask(self, op: str, **words: object) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises KeeperAway, KeeperRefused."""
        self._number += 1
        number = self._number
        answered = self._waiting[number] = Event()
        try:
            with fail_after(ANSWER):
                await self._send({"id": number, "op": op, **words})
                await answered.wait()
        except (TimeoutError, *BROKEN) as error:
            self.closed.set()  # it hangs, or is gone: whoever keeps the link must know at once
            raise KeeperAway(f"the keeper did not answer {op!r}") from error
        finally:
            self._waiting.pop(number, None)
        answer = self._answers.pop(number, None)
        if answer is None:
            raise KeeperAway(f"the connection to the keeper ended before it answered {op!r}")
        if not answer.get("ok"):
            raise KeeperRefused(str(answer.get("error")), str(answer.get("message")))
        return answer

    async def _send(self, request: dict[str, object]) -> None:
        line = json.dumps(request, separators=(",", ":"), default=str).encode() + b"\n"
        # half a line would make nonsense of the next one: once begun, it is sent, within the caller's limit
        async with self._writing:
            with CancelScope(shield=True), fail_after(ANSWER):
                await self._stream.send(line)

    async def read_until_closed(self) -> None:
        """Hand answers to those who asked, and pushes on."""
        lines = BufferedByteReceiveStream(self._stream)
        try:
            while True:
                self._take(json.loads(await lines.receive_until(b"\n", LINE_LIMIT)))
        except (*BROKEN, ValueError, anyio.DelimiterNotFound):
            self.closed.set()
            for waiting in self._waiting.values():
                waiting.set()

    def _take(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            self._push(message)
        elif waiting := self._waiting.get(number):
            self._answers[number] = message
            waiting.set()


@asynccontextmanager
async def dial(path: Path, push: Push) -> AsyncIterator[Wire]:
    """A connection with its reader beside it. Raises KeeperAway when nobody listens there."""
    try:
        with fail_after(ANSWER):
            stream = await _connect(path)
    except (TimeoutError, OSError) as error:
        raise KeeperAway(f"nobody answers at {path}") from error
    wire = Wire(stream, push)
    async with stream, background() as group:
        group.start_soon(wire.read_until_closed)
        yield wire


async def _connect(path: Path) -> SocketStream:
    if len(os.fsencode(path)) <= SOCKET_PATH:
        return await anyio.connect_unix(path)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await anyio.connect_unix(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
