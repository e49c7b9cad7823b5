"""Real `leasehold` processes without half a second of imports each: forked from one that has done them, one for each worker of pytest.

What differs from `python -m leasehold`: /proc/<pid>/cmdline and environ are the server's. The demo, README's tour, the units and the bench start the true command.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWER = 60
"""Seconds for a fork: the first one waits for the imports."""
LONGEST = 1 << 20
"""Bytes of a request."""


class Forked:
    """A process as asyncio's. Its connection brings two messages: its pid, and how it ended."""

    def __init__(self, connection, pid, out):
        self.pid = pid
        self.returncode = None
        self._connection = connection
        self._out = out
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._hear)

    async def wait(self):
        await self._ended.wait()
        return self.returncode

    async def communicate(self):
        """All of stdout and stderr, if they are pipes; then its end."""
        said = await asyncio.gather(*(asyncio.to_thread(_read_all, each) for each in self._out))
        await self.wait()
        return said

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # it has ended, and we have not heard so yet
            if self.returncode is None:
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _hear(self):
        self._loop.remove_reader(self._connection)
        with self._connection:
            self.returncode = int(
                self._connection.recv(100)
            )  # nothing: the server itself is gone, and that is an error
        self._ended.set()


def _read_all(fd):
    with open(fd, "rb") as pipe:
        return pipe.read()


class Server:
    """It ends when whoever started it does: its stdin is then at an end."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="leasehold-fork-")
        self.path = str(Path(self._directory.name) / "socket")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout.readline() == b"ready\n"

    async def start(self, *words, env, stdout, stderr):
        """`leasehold words...`. stdout and stderr: a file, or -1 for a pipe that communicate() reads."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(ANSWER)
        connection.connect(self.path)
        pipes = [os.pipe() if each == -1 else (None, os.dup(each.fileno())) for each in (stdout, stderr)]
        request = json.dumps({"words": words, "env": env, "cwd": os.getcwd()}).encode()
        try:
            socket.send_fds(connection, [request], [end for _, end in pipes])
            pid = int(connection.recv(100))
        finally:
            for _, end in pipes:
                os.close(end)
        connection.setblocking(False)
        return Forked(connection, pid, [end for end, _ in pipes if end is not None])


_servers = {}


async def start(*words, env, stdout, stderr):
    """A `leasehold` process of this pytest worker."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = Server()
    return await _servers[os.getpid()].start(*words, env=env, stdout=stdout, stderr=stderr)


async def start_command(*words, env, stdout, stderr):
    """The same by the true command."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leasehold", *words, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )


def serve(path):
    """Fork for whoever connects. Returns in each child: what it is to do."""
    watched = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(16)
    watched.register(listener, selectors.EVENT_READ)
    watched.register(sys.stdin.fileno(), selectors.EVENT_READ)
    children = {}
    print("ready", flush=True)
    while True:
        for key, _ in watched.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                raw, fds, _, _ = socket.recv_fds(connection, LONGEST, 2)
                if not raw:  # whoever asked has been killed
                    connection.close()
                    continue
                if (pid := os.fork()) == 0:
                    watched.close()
                    for each in (listener, connection, *(other for _, other in children.values())):
                        each.close()
                    for each in children:
                        os.close(each)
                    return json.loads(raw), fds
                for fd in fds:
                    os.close(fd)
                over = os.pidfd_open(pid)  # can be read when the child has ended
                children[over] = pid, connection
                watched.register(over, selectors.EVENT_READ)
                with contextlib.suppress(OSError):
                    connection.sendall(str(pid).encode())
            elif key.fileobj in children:
                pid, connection = children.pop(key.fileobj)
                watched.unregister(key.fileobj)
                os.close(key.fileobj)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with connection, contextlib.suppress(OSError):
                    connection.sendall(str(status).encode())
            else:
                os._exit(0)


def become(request, fds):
    """As if it had been started so."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((null, *fds)):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["leasehold", *request["words"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTHONPATH" in os.environ:  # it is how tests put something of theirs into a daemon
        sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        importlib.invalidate_caches()
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("sitecustomize")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    sys.path.pop(0)
    from leasehold.cli.app import main

    gc.collect()
    gc.freeze()
    become(*serve(sys.argv[1]))
    main()
