"""The nouns. Plain frozen data; nothing here imports anything of ours or does anything."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

Outcome = Literal["succeeded", "failed", "blocked", "timed_out", "cancelled", "interrupted", "lost"]
Stream = Literal["stdout", "stderr"]


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME: the one clock that daemon and keeper share, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Worker:
    """One life of this daemon, as the database knows it. The token is its fence."""

    id: int
    token: UUID


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run and its fence: nothing is written about a run without both."""

    id: int
    token: UUID


@dataclass(frozen=True, slots=True)
class Removal:
    """A directory below the state directory that has to go; `token` is of the run whose directory is meant."""

    id: int
    what: str
    path: str
    token: UUID | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim answers: which run was opened, for which job."""

    key: RunKey
    job_id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Run:
    """One leased attempt at a job, with all that is needed to start it or to take it up again."""

    key: RunKey
    job_id: int
    attempt: int
    tenant: str
    queue: str
    agent: str
    adapter: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    workspace: str | None
    launcher: tuple[str, ...]
    prompt: str
    payload: Mapping[str, Any]
    limits: Mapping[str, Any]
    stop_grace: timedelta
    total_timeout: timedelta | None
    status: str
    started_at: datetime | None
    cancel_requested: bool
    stdout_shipped: int
    stderr_shipped: int
    events_mark: int
    spawn_timeout: timedelta = timedelta(minutes=1)
    first_output_timeout: timedelta | None = None
    idle_timeout: timedelta | None = None
    tool_idle_timeout: timedelta | None = None
    linger_timeout: timedelta = timedelta(seconds=30)
    output_head: int = 8 << 20
    output_tail: int = 1 << 20
    output_limit: int | None = None
    checkpoint: Mapping[str, Any] | None = None
    unkillable: bool = False
    events_limit: int = 100_000
    context: Mapping[str, Any] = field(default_factory=dict)
    session: str | None = None
    session_evicted: bool = False
    while_waiting: str = "keep"
    waited: timedelta = timedelta(0)
    wants_workspace: bool = False
    conversation: int | None = None
    private_config: bool = False
    config_files: Mapping[str, str] = field(default_factory=dict)
    credential: str | None = None
    credential_name: str | None = None
    credential_lock: str = "run"
    credential_wait: timedelta = timedelta(minutes=1)
    secrets: frozenset[str] = frozenset()

    @property
    def id(self) -> int:
        """The run's id."""
        return self.key.id


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule to be looked at in `due_in`; without `next_at` its next tick is to be looked up. No cron: an interval."""

    id: int
    name: str
    version: int
    cron: str | None
    timezone: str
    starts_at: datetime
    next_at: datetime | None
    missed_most: int
    now: datetime
    due_in: timedelta


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute, before anybody has executed it. `converses`: its stdin stays open, for what an adapter owes it."""

    argv: tuple[str, ...]
    stdin: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    converses: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for the stdin of a live agent. Of one run the keeper takes each key once, so whoever is in doubt says it again."""

    key: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """What somebody wants of a live conversation. `id` is that of the turn, or of the interaction that is answered.

    `data` of an answer: `request`, the agent's own id of what it asked, and `decision`, `option`, `answers`, `message`, as in
    `interactions.response`.
    """

    kind: Literal["prompt", "steer", "interrupt", "answer"]
    id: int
    text: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What the keeper knows it by."""
        return f"{'answer' if self.kind == 'answer' else 'turn'}:{self.id}"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing an agent said."""

    kind: str
    message: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    level: str = "info"
    phase: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event on its way to the database. `mark` is its place in the run's stdout: a repeat is skipped."""

    run: RunKey
    mark: int | None
    event: Event
    size: int = 0  # bytes of the line it came from


@dataclass(frozen=True, slots=True)
class OutputRow:
    """Bytes on their way to the database; `offset` counts the output bytes of the stream before them."""

    run: RunKey
    stream: Stream
    offset: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, and why. `reason` is null only for plain success."""

    outcome: Outcome
    reason: str | None = None
    message: str | None = None
    result: Any = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What the database made of a verdict: `settled`, `repeated` or `late`, and where the job is now."""

    disposition: str
    job_status: str
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class Exit:
    """The keeper's exit record: the tree is swept, this is how it ended.

    `why` is `exit` when the agent ended by itself, else what ended it; sizes are bytes, times are seconds.
    """

    run_id: int
    token: str
    state: Literal["exited", "never_started"]
    why: str
    exit_code: int | None = None
    signal: int | None = None
    error: Mapping[str, str] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float = 0.0
    swept: int = 0
    containment: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    disk_free: int | None = None
    tree: str | None = None
