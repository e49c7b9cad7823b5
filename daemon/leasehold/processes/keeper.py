"""The daemon's side of the keeper: one connection, reopened when lost. While it is away nothing is spawned or claimed."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from signal import SIGKILL
from typing import Any
from uuid import UUID

from anyio import Event

from leasehold.errors import KeeperAway, KeeperRefused
from leasehold.models import Exit, RunKey
from leasehold.processes.record import parse_exit
from leasehold.processes.wire import Wire


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to start: `deadline` is CLOCK_BOOTTIME and was proved before the claim (rule 1); `grace` seconds before it TERM."""

    run_id: int
    token: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None
    stdin: bytes | None
    deadline: float
    grace: float
    limits: Mapping[str, Any] = field(default_factory=dict)
    converses: bool = False


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What the keeper has of a run: a living tree, or its exit record."""

    run_id: int
    token: str
    state: str
    pid: int | None = None
    start_time: int | None = None
    cgroup: str | None = None
    deadline: float | None = None
    exit: Exit | None = None
    limits_missing: tuple[str, ...] = ()
    held: bool = False
    inputs: int = 0

    @property
    def key(self) -> RunKey | None:
        """Which run it is to the database; None: nobody's, it was stopped before it was spawned."""
        try:
            return RunKey(self.run_id, UUID(self.token))
        except ValueError:
            return None

    def is_of(self, key: RunKey) -> bool:
        """Whether it is this run, and not one that had its id before a failover (rule 19)."""
        return self.run_id == key.id and self.token in ("", str(key.token))  # stopped before it was spawned: no token


@dataclass(frozen=True, slots=True)
class Listed:
    """What the keeper has of a run, at a glance: whose it is, and whether its tree is gone."""

    key: RunKey | None
    ended: bool


@dataclass(frozen=True, slots=True)
class Look:
    """A living tree as the keeper saw it: what it has used, who is in it, its shape as text."""

    cpu_seconds: float
    io_bytes: int
    processes: Sequence[Mapping[str, Any]]
    tree: str


@dataclass(slots=True)
class Tree:
    """A living tree as we know it, for the day when the keeper is away."""

    run: KeptRun
    deadline: float
    grace: float


SURELY_SHORT = 2 << 20
"""Bytes of an input that fit into a request, whatever they are."""
REQUEST_LIMIT = 15 << 20
"""Characters of an input as JSON: the keeper closes the connection on a request of 16 MiB."""
KEY_LENGTH = 256


class Keeper:
    """Requests to the keeper. Each raises KeeperAway when it does not answer in time."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.containment: Mapping[str, Any] = {}
        self.connected = False
        self._operations: frozenset[str] = frozenset()
        self._wire: Wire | None = None
        self._trees: dict[int, Tree] = {}
        self._condemned: set[int] = set()
        self._exits: dict[int, Exit] = {}
        self._waiting: dict[int, Event] = {}
        self._unkillable: dict[int, Sequence[Mapping[str, Any]]] = {}
        self._fearing: dict[int, Event] = {}

    @property
    def feeds(self) -> bool:
        """Can agents be spoken to through it? A keeper of an earlier release cannot."""
        return "feed" in self._operations

    @property
    def removes(self) -> bool:
        """Does it remove directories that only the agents' user may? A keeper of an earlier release does not."""
        return "remove" in self._operations

    @property
    def rung(self) -> str:
        """Which containment is in force: `cgroup` or `subreaper`."""
        return str(self.containment.get("rung", "unknown"))

    async def spawn(self, spec: Spawn) -> KeptRun:
        """Start a run, or learn what became of it: a run id is started at most once."""
        text = {"text": spec.stdin.decode()} if spec.stdin is not None else None
        stdin = {"fifo": True} if spec.converses else text
        answer = await self._ask(
            "spawn", run_id=spec.run_id, token=spec.token, argv=list(spec.argv), env=dict(spec.env), cwd=spec.cwd,
            stdin=stdin, deadline=spec.deadline, grace=spec.grace, limits=dict(spec.limits),
        )  # fmt: skip
        kept = self._learn(answer)
        if kept.exit is None:
            self._trees[spec.run_id] = Tree(kept, spec.deadline, spec.grace)
        return kept

    async def extend(self, runs: Collection[int], deadline: float) -> None:
        """These runs may live until `deadline`; the keeper never moves one back."""
        if runs:
            await self._ask("extend", runs=list(runs), deadline=deadline)
        for run_id in runs:
            if tree := self._trees.get(run_id):
                tree.deadline = max(tree.deadline, deadline)

    async def stop(self, run_id: int, why: str, signals: Sequence[tuple[str, float]]) -> None:
        """Ask for the end of a run: each signal, then its wait in seconds; after the last the tree is killed."""
        await self._ask("stop", run_id=run_id, why=why, signals=[list(step) for step in signals])

    async def feed(self, run_id: int, key: str, raw: bytes) -> bool:
        """Tell a live agent something through its stdin; False: it was told before under this key."""
        text = raw.decode("utf-8", "surrogateescape")
        if len(raw) > SURELY_SHORT and len(json.dumps(text)) > REQUEST_LIMIT:
            raise KeeperRefused("too_long", f"an input of {len(raw)} bytes is longer than any request may be")
        return bool((await self._ask("feed", run_id=run_id, key=_short(key), text=text))["taken"])

    async def inputs(self, run_id: int, keys: Sequence[str]) -> set[str]:
        """Which of these inputs the run was told."""
        if not keys:
            return set()
        said = set((await self._ask("inputs", run_id=run_id, keys=[_short(key) for key in keys]))["taken"])
        return {key for key in keys if _short(key) in said}

    async def close_stdin(self, run_id: int) -> None:
        """The agent reads the end of its input, behind all that it was told."""
        await self._ask("close_stdin", run_id=run_id)

    async def kept(self) -> list[KeptRun]:
        """Everything the keeper has: live trees, and exit records nobody has let go."""
        kept = [self._learn(run) for run in (await self._ask("list"))["runs"]]
        for run in kept:
            if run.exit is None and run.run_id not in self._trees and run.deadline is not None:
                self._trees[run.run_id] = Tree(run, run.deadline, 0.0)
        return kept

    async def listed(self) -> dict[int, Listed]:
        """Everything the keeper has, only to look at: nobody is told of an end by this."""
        runs = [KeptRun(run["run_id"], run["token"], run["state"]) for run in (await self._ask("list"))["runs"]]
        return {run.run_id: Listed(run.key, run.state == "exited") for run in runs}

    async def hold(self, run_id: int) -> bool:
        """Let the whole tree stand still; False: it is being ended, so it is not held."""
        return bool((await self._ask("hold", run_id=run_id))["held"])

    async def release(self, run_id: int) -> None:
        """Let it run again."""
        await self._ask("release", run_id=run_id)

    async def look(self, run_id: int) -> Look:
        """What the tree is and has used by now."""
        said = await self._ask("look", run_id=run_id)
        return Look(said["cpu_seconds"], said["io_bytes"], said["processes"], said["tree"])

    async def punch(self, run_id: int, stream: str, start: int, end: int) -> bool:
        """Free the disk of what is stored of `stdout` or `stderr`; False: it could not be."""
        return bool((await self._ask("punch", run_id=run_id, stream=stream, start=start, end=end))["punched"])

    async def remove(self, path: str) -> None:
        """Remove a directory below the state directory's sessions or workspaces; at once it is only out of the way."""
        await self._ask("remove", path=path)

    async def forget(self, run_id: int) -> None:
        """The outcome is in the database: the run directory may go."""
        await self._ask("forget", run_id=run_id)
        self._exits.pop(run_id, None)
        self._waiting.pop(run_id, None)
        self._condemned.discard(run_id)
        self._unkillable.pop(run_id, None)
        self._fearing.pop(run_id, None)

    async def unkillable(self, run_id: int) -> Sequence[Mapping[str, Any]]:
        """Wait until the keeper says that it kills the tree in vain; who is left of it (pid, name, state)."""
        while run_id not in self._unkillable:
            await self._fearing.setdefault(run_id, Event()).wait()
        return self._unkillable[run_id]

    async def exited(self, run_id: int) -> Exit:
        """Wait until the run's tree is gone; survives a lost connection and a restarted keeper."""
        while run_id not in self._exits:
            await self._waiting.setdefault(run_id, Event()).wait()
        return self._exits[run_id]

    async def _ask(self, op: str, **words: object) -> dict[str, Any]:
        if self._wire is None or not self.connected:
            raise KeeperAway
        return await self._wire.ask(op, **words)

    def _learn(self, said: Mapping[str, Any]) -> KeptRun:
        ending = parse_exit(said["exit"], said["run_id"]) if said.get("exit") else None
        if ending is not None:
            self.hear_exit(ending)
        elif said.get("state") == "unkillable":
            self.hear_unkillable(said["run_id"], said.get("unkillable", ()))
        known = {each.name for each in fields(KeptRun)} - {"exit", "limits_missing"}
        kept = {name: said[name] for name in known if name in said}
        return KeptRun(**kept, exit=ending, limits_missing=tuple(said.get("limits_missing", ())))

    def hear_exit(self, ending: Exit) -> None:
        """A tree is gone."""
        if ending.run_id in self._condemned and ending.why == "exit" and ending.signal == SIGKILL:
            ending = replace(ending, why="deadline")  # the keeper saw it die and cannot know that it was us
        self._exits[ending.run_id] = ending
        self._trees.pop(ending.run_id, None)
        self._waiting.pop(ending.run_id, Event()).set()

    def hear_unkillable(self, run_id: int, processes: Sequence[Mapping[str, Any]]) -> None:
        """A tree does not die. Its end is heard of as usual, should it come."""
        self._unkillable[run_id] = processes
        self._fearing.pop(run_id, Event()).set()

    async def recollect(self) -> list[KeptRun]:
        """After a reconnect: what ended meanwhile, and what the keeper never got or no longer has."""
        kept = await self.kept()
        gone = self._waiting.keys() - {run.run_id for run in kept}
        for run_id in gone:  # never spawned, or forgotten: somebody waits for an end that nobody would tell
            self.hear_exit(Exit(run_id, "", "never_started", "keeper_lost"))
        return kept

    def connect(self, wire: Wire, hello: Mapping[str, Any]) -> None:
        """From now on talk over `wire`, to whoever answered `hello` so."""
        self._wire = wire
        self.containment = hello["containment"]
        self._operations = frozenset(hello.get("operations", ()))
        self.connected = True

    def overdue(self, now: float) -> list[KeptRun]:
        """Trees that the keeper should have stopped by now, were it there and well."""
        share = 0.5 if self.connected else 1.0  # a keeper that seems well gets half of the grace to show that it is
        late = [tree.run for tree in self._trees.values() if now >= tree.deadline - tree.grace * share]
        return [run for run in late if not (self.connected and run.run_id in self._unkillable)]  # it is at it already

    def condemn(self, run: KeptRun) -> bool:
        """We kill it ourselves; False: we have begun before."""
        known = run.run_id in self._condemned
        self._condemned.add(run.run_id)
        return not known

    def killed(self, run: KeptRun, *, gone: bool) -> None:
        """We killed a tree ourselves; once nothing is left of it, it need not be killed again."""
        if gone:
            self._trees.pop(run.run_id, None)


def _short(key: str) -> str:
    """The key as the keeper knows it: part of one may be an agent's own words."""
    if len(key) <= KEY_LENGTH:
        return key
    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{key[: KEY_LENGTH - len(digest) - 1]}#{digest}"
