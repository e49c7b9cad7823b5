"""Lives of a daemon that does nothing but converse: a real keeper, a real agent, and a database of three lines."""

import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import anyio
from anyio import CapacityLimiter
from leasehold.bell import Bell
from leasehold.db.away import AWAY
from leasehold.events.recorder import Recorder
from leasehold.models import Run, RunKey, boottime
from leasehold.processes.keeper import Spawn
from leasehold.processes.link import open_keeper
from leasehold.runs.converse import Talk
from leasehold.runs.roster import Roster
from leasehold.runs.supervise import _follow
from support.chat.dialect import Chat

PROGRAM = Path(__file__).with_name("program.py")


class Notes:
    """What the database has: the controls, which of them were taken, and what was said."""

    def __init__(self):
        self.controls = []
        self.taken = []
        self.events = {}
        self.readers = CapacityLimiter(1)
        self.away = False

    async def patiently(self, call, *args, **kwargs):
        while True:
            try:
                return await call(*args, **kwargs)
            except AWAY:
                await anyio.sleep(0.05)

    async def read_inputs(self, _worker, runs, *, again):
        await self._answer()
        return [(runs[0], each) for each in self.controls if again or each.key not in self.taken]

    async def take_inputs(self, _worker, inputs):
        await self._answer()
        self.taken += [each.key for _, each in inputs if each.key not in self.taken]

    async def _answer(self):
        await anyio.sleep(0)
        if self.away:
            raise ConnectionError

    async def ship(self, item):
        if getattr(item, "event", None) is not None:
            self.events.setdefault(item.mark, item.event)

    async def shipped(self, _run):
        return None

    async def save(self, _run, _state):
        return False

    async def stored(self, *_):
        return []


class Life:
    """From here to a SIGKILL."""

    def __init__(self, run, keeper, notes, directory, places=1, dialect=Chat):
        self.run, self.keeper, self.notes = run, keeper, notes
        self.adapter = dialect(run)
        self.freed = Bell()
        self.roster = Roster(places, self.freed)
        self.held = self.roster.admit(run.key, 1, 1, boottime() + 60)
        self.recorder = Recorder(run, self.adapter, notes, keeper, directory / "runs" / str(run.id))
        lease = type("Lease", (), {"worker": None})
        self.talk = Talk(run, self.held, self.adapter, self.recorder, notes, keeper, lease, self.roster)
        self.ended = anyio.Event()

    def want(self, control):
        """Somebody wants something, and rings."""
        self.notes.controls.append(control)
        self.held.inputs.ring()

    async def until(self, fact, within=20.0):
        with anyio.fail_after(within):
            while not (found := fact()):
                await anyio.sleep(0.005)
            return found

    async def end(self):
        """As supervise does it."""
        ending = await self.keeper.exited(self.run.id)
        self.beside.cancel_scope.cancel()
        self.ended.set()
        await self.recorder.end()
        await self.talk.end()
        return ending


def a_run(script, **words):
    facts = {
        "key": RunKey(1, uuid4()), "job_id": 1, "attempt": 1, "tenant": "t", "queue": "q", "agent": "chat", "adapter": "claude",
        "command": (), "env": {}, "workspace": None, "launcher": (), "prompt": script, "payload": {}, "limits": {},
        "stop_grace": timedelta(seconds=1), "total_timeout": None, "status": "running", "started_at": None,
        "cancel_requested": False, "stdout_shipped": 0, "stderr_shipped": 0, "events_mark": 0,
    }  # fmt: skip
    return Run(**{**facts, **words})


@asynccontextmanager
async def a_life(process, run, notes, log, **words):
    """Spawn or adopt, follow and converse; whoever leaves the block kills the daemon, not the agent."""
    async with open_keeper(
        process.directory, process.socket, "test", start_if_missing=False, on_back=lambda: None
    ) as keeper:
        life = Life(run, keeper, notes, process.directory, **words)
        argv = [sys.executable, str(PROGRAM), str(log)]
        spec = Spawn(run.id, str(run.key.token), argv, {}, None, None, boottime() + 60, 1.0, converses=True)
        await keeper.spawn(spec)
        with life.recorder:
            async with anyio.create_task_group() as group:
                group.start_soon(_follow, life.recorder, life.ended)
                async with anyio.create_task_group() as life.beside:
                    life.beside.start_soon(life.talk.tell_forever)
                    life.beside.start_soon(life.talk.attend_forever)
                    with anyio.CancelScope(shield=True):
                        yield life
                    life.beside.cancel_scope.cancel()
                group.cancel_scope.cancel()
