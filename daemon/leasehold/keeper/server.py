"""The keeper's loop: one thread, one selector; connections, epochs, and the runs' times. If it fails, the next keeper sweeps."""

import errno
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from leasehold.keeper.clock import boottime
from leasehold.keeper.desk import Desk
from leasehold.keeper.log import log
from leasehold.keeper.protocol import Lines, LineTooLongError, encode
from leasehold.keeper.run import Run

SEND_LIMIT = 64 * 1024 * 1024
"""Bytes that a client may leave unread before its connection is closed."""
SOCKET_PATH = 100
DEAF = 1.0
"""Seconds for which nobody is let in after there was no descriptor for a client: it waits in the queue, and we do not spin."""


class Connection:
    """One client. `epoch` is None until its hello was accepted."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lines = Lines()
        self.out = bytearray()
        self.epoch: int | None = None
        self.closed = False

    def send(self, message: dict[str, object]) -> None:
        """Queue a message; what the socket takes goes at once."""
        self.out += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without waiting."""
        try:
            while self.out and not self.closed:
                sent = self.stream.send(self.out)
                del self.out[:sent]
        except BlockingIOError:
            self.closed = self.closed or len(self.out) > SEND_LIMIT
        except OSError:
            self.closed = True


class Server:
    """Listens, reads, answers, and wakes when a run needs it."""

    def __init__(self, path: Path, allowed_gids: set[int]) -> None:
        self._path = path
        self._allowed_gids = allowed_gids
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.desk: Desk | None = None
        self.stopping = False
        self._told_to_stop = False
        self._deaf_until: float | None = None
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):  # before anybody can see that we listen
            signal.signal(number, self._signalled)
        self._listener = listen(path)

    def serve(self, desk: Desk, idle_limit: float | None) -> None:
        """Until told to stop and every tree is gone, or idle for `idle_limit` seconds."""
        self.desk = desk
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._woken)
        self._selector.register(desk.house.feeds, selectors.EVENT_READ, desk.house.feeds.flush)
        busy_at = boottime()
        while not (self.stopping and not desk.house.live):
            next_at = desk.rounds.next_at()
            self._listen_again()
            limits = [at - boottime() for at in (next_at, self._deaf_until) if at is not None]
            if idle_limit is not None:
                limits.append(1.0)
            self._selector.select(max(0.0, min(limits)) if limits else None)
            now = boottime()
            self._hear()
            if self._told_to_stop and not self.stopping:
                self._stop(desk.house.live)
            desk.rounds.go(now)
            if desk.house.live or self._connections:
                busy_at = boottime()
            elif idle_limit is not None and boottime() - busy_at > idle_limit:
                log("idle", decided="leave: no runs, no daemon")
                return

    def _hear(self) -> None:
        """All that was said before this moment, so that a deadline that we slept past does not beat its extension."""
        for key, _mask in self._selector.select(0):
            handler: Callable[[], None] = key.data
            handler()

    def tell(self, message: dict[str, object]) -> None:
        """Push to the daemon in charge."""
        for connection in list(self._connections.values()):
            if self.desk is not None and connection.epoch == self.desk.epoch:
                connection.send(message)
                self._watch(connection)

    def supersede(self, keep: Connection) -> None:
        """Close every other connection; what it sent and nobody read is dropped (rule 5)."""
        for connection in list(self._connections.values()):
            if connection is not keep and connection.epoch is not None:
                connection.send({"event": "superseded"})
                self._drop(connection)

    def close(self) -> None:
        """Stop listening; the socket's name goes with us."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _signalled(self, number: int, _frame: object) -> None:
        self._told_to_stop |= number in (signal.SIGTERM, signal.SIGINT)

    def _stop(self, live: list[Run]) -> None:
        self.stopping = True
        log("stopping", runs=len(live))
        for run in live:
            run.stop([(signal.SIGTERM, run.grace)], "keeper_stopped")

    def _woken(self) -> None:
        os.read(self._wake_reader, 4096)

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log("out_of_descriptors", "error", decided="the client waits in the queue")
                self._deaf_until = boottime() + DEAF
                self._selector.unregister(self._listener)
            return
        stream.setblocking(False)
        if not self._trusted(stream):
            stream.close()
            return
        connection = self._connections[stream.fileno()] = Connection(stream)
        self._selector.register(stream, selectors.EVENT_READ, lambda: self._serve(connection))

    def _listen_again(self) -> None:
        if self._deaf_until is not None and boottime() >= self._deaf_until:
            self._deaf_until = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _trusted(self, stream: socket.socket) -> bool:
        pid, uid, gid = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in (0, os.geteuid()) or gid in self._allowed_gids:
            return True
        log("peer_refused", "warning", pid=pid, uid=uid, gid=gid)
        return False

    def _serve(self, connection: Connection) -> None:
        connection.flush()
        try:
            data = connection.stream.recv(1 << 18)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            self._drop(connection)
            return
        connection.lines.feed(data or b"")
        try:
            for line in connection.lines:
                if connection.closed or self.desk is None:
                    break
                connection.send(self.desk.answer(line, connection, self.supersede))
        except LineTooLongError:
            connection.send({"id": None, "ok": False, "error": "bad_request", "message": "a request this long is none"})
            connection.closed = True
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        if connection.closed:
            self._drop(connection)
        elif connection.stream.fileno() in self._connections:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
            self._selector.modify(connection.stream, wanted, lambda: self._serve(connection))

    def _drop(self, connection: Connection) -> None:
        connection.closed = True
        if self._connections.pop(connection.stream.fileno(), None) is not None:
            self._selector.unregister(connection.stream)
            connection.stream.close()


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for our user and group; a stale one is replaced (we hold the state directory's lock)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = len(os.fsencode(path)) <= SOCKET_PATH
        listener.bind(str(path) if short else f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    path.chmod(0o660)
    listener.listen(16)
    return listener
