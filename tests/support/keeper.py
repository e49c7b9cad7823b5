"""A keeper for tests: the real process, spoken to line by line over its socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from leasehold.keeper.protocol import PROTOCOL
from leasehold.processes.launch import keeper_command
from support.host import alive, environ, pids

PATIENCE = 20.0
SILENT = """
import sys
from leasehold.keeper.desk import Desk
begin, about = Desk.__init__, Desk._about
def without(self, *words):
    begin(self, *words)
    del self._operations["feed"], self._operations["inputs"]
def as_before(self):
    said = about(self)
    del said["operations"]
    return said
Desk.__init__, Desk._about = without, as_before
sys.argv = sys.argv[6:]
from leasehold.keeper.__main__ import main
sys.exit(main())
"""
"""A keeper of an earlier release of the same protocol."""


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until(fact, what="a fact", within=PATIENCE):
    """Wait for a fact about processes or files; answers it."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s for {what}")
        time.sleep(0.01)
    return found


class Caller:
    """One connection."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")
        self.pushes = []
        self.number = 0

    def ask(self, op, **words):
        self.number += 1
        self.socket.sendall(json.dumps({"id": self.number, "op": op, **words}).encode() + b"\n")
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionError("closed")
            message = json.loads(line)
            if "event" in message:
                self.pushes.append(message)
            else:
                return message

    def hello(self, **words):
        return self.ask("hello", protocol=PROTOCOL, instance="test", daemon=id(self), **words)

    def spawn(self, run_id, *argv, deadline=60.0, grace=0.5, **words):
        spec = {"token": f"token-{run_id}", "env": {}, "cwd": None, "stdin": None, "limits": {}, **words}
        return self.ask("spawn", run_id=run_id, argv=list(argv), deadline=boottime() + deadline, grace=grace, **spec)

    def sh(self, run_id, script, **words):
        return self.spawn(run_id, "sh", "-c", script, **words)

    def run(self, run_id):
        return next((run for run in self.ask("list")["runs"] if run["run_id"] == run_id), None)

    def ended(self, run_id, within=PATIENCE):
        """Wait for the exit record."""
        return until(lambda: (self.run(run_id) or {}).get("exit"), f"the end of run {run_id}", within)

    def pushed(self, event, run_id, within=PATIENCE):
        """Wait for a push about a run."""

        def heard():
            self.ask("about")
            return next((push for push in self.pushes if (push["event"], push["run_id"]) == (event, run_id)), None)

        return until(heard, f"the push {event}", within)

    def close(self):
        self.file.close()
        self.socket.close()


def removed(group):
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class KeeperProcess:
    """A keeper on a directory of its own."""

    def __init__(self, directory, rung, *, prefix=()):
        self.directory = Path(directory)
        self.rung = rung
        self.prefix = prefix
        self.processes = []
        self.callers = []

    def start(self, *words, wait=True, pass_fds=()):
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [*self.prefix, *keeper_command(self.directory), "--containment", self.rung]
        with (self.directory / "log").open("ab") as lines:
            process = subprocess.Popen(
                [*command, *words], stdin=subprocess.DEVNULL, stdout=lines, stderr=lines, pass_fds=pass_fds
            )
        self.processes.append(process)
        if wait:
            until(lambda: self.answers(process.pid) or process.poll() is not None, "the keeper's socket")
            assert process.poll() is None, (self.directory / "log").read_text()
        return process

    @property
    def socket(self):
        return self.directory / "keeper.sock"

    def answers(self, pid=None):
        """Does this very process listen? A child that a killed keeper was about to start has its socket for a moment longer."""
        try:
            caller = Caller(self.socket)
        except OSError:
            return False
        credentials = caller.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        caller.close()
        return int.from_bytes(credentials[:4], sys.byteorder) == (pid or self.processes[-1].pid)

    def call(self, *, hello=True):
        caller = Caller(self.socket)
        self.callers.append(caller)
        if hello:
            assert caller.hello()["ok"]
        return caller

    def path(self, run_id, name):
        return self.directory / "runs" / str(run_id) / name

    def kill(self):
        self.processes[-1].send_signal(signal.SIGKILL)
        self.processes[-1].wait()

    @staticmethod
    def group_exists(cgroup):
        return Path(cgroup).is_dir()

    def family(self):
        """Everything alive that carries this keeper's marker."""
        mark = b"LEASEHOLD_KEEPER_ID=" + (self.directory / "keeper.id").read_bytes().strip()
        return [pid for pid in pids() if mark in environ(pid) and alive(pid)]

    def close(self):
        for caller in self.callers:
            caller.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        if (self.directory / "keeper.id").exists():
            for pid in self.family():
                with suppress(ProcessLookupError):  # it may go by itself meanwhile
                    os.kill(pid, signal.SIGKILL)
            self.remove_groups()

    def remove_groups(self):
        """A keeper that was killed leaves its empty groups to the next one, which never comes here."""
        for root in self.group_roots():
            for group in [*root.glob("run-*"), root]:
                until(lambda group=group: removed(group), f"an empty group {group}")

    def group_roots(self):
        """Where it makes its groups: right below the one that we are in, as it is our child."""
        name = "leasehold-" + (self.directory / "keeper.id").read_text()[:12]
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        mounts = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
        return [root for mount in mounts if (root := mount / own.strip("/") / name).is_dir()]
