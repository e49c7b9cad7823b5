"""What is tried, what must come of it, and how one tells: the rows of the table. Pure."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from leasehold.torture.agent import ANSWER, BOMB, LINE, PLAIN

GRACE = timedelta(seconds=0.5)
SOON = timedelta(seconds=1.5)
KEPT = 9 << 20
"""Bytes of head and tail that an agent has by default."""
LONG_PROMPT = "word " * 20_000


class Missed(Exception):
    """It was not caught, and how one can tell."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one case: rows of the database, and what the observer of /proc counted."""

    run: Mapping[str, Any]
    job: Mapping[str, Any]
    phases: Mapping[str, Mapping[str, Any]]
    kinds: tuple[str, ...]
    stored: int
    digest: str
    most: int
    rung: str

    @property
    def used(self) -> Mapping[str, Any]:
        """The run's resources."""
        return self.run["resources"] or {}

    def ended(self, *ways: str) -> None:
        """The run ended in one of these ways (`outcome reason`)."""
        how = f"{self.run['outcome']} {self.run['reason']}"
        if how not in ways:
            raise Missed(f"ended {how} ({self.run['message'] or 'no message'})")


Check = Callable[[Seen], str]


@dataclass(frozen=True, slots=True)
class Case:
    """One vice, with the agent's columns that give it a chance to be caught."""

    kind: str
    tried: str
    expected: str
    check: Check
    columns: Mapping[str, Any] = field(default_factory=dict)
    cancel: bool = False
    needs: str = ""
    escapes: tuple[str, ...] = ()
    family: int = 1
    prompt: str = "misbehave"
    queue: str = "torture"
    name: str = ""

    @property
    def agent(self) -> str:
        """The agent's name, also the mark of its processes."""
        return self.name or self.kind.replace("_", "-")


def swept(least: int) -> Check:
    """The leader ended well, and whatever it left was ended with it."""

    def check(seen: Seen) -> str:
        seen.ended("succeeded ok")
        if seen.most < least:
            raise Missed(f"only {seen.most} of {least} processes were ever seen: it could not misbehave")
        count = seen.used.get("swept", 0)
        return f"the sweep at its end ({seen.rung}), {count} killed" if count else f"gone at its end ({seen.rung})"

    return check


def killed(seen: Seen) -> str:
    """TERM was not enough."""
    seen.ended("cancelled cancelled")
    if seen.run["signal"] != 9:
        raise Missed(f"not killed: signal {seen.run['signal']}, exit code {seen.run['exit_code']}")
    return f"KILL after stop_grace ({seen.rung})"


def total(seen: Seen) -> str:
    """Its time was up."""
    seen.ended("timed_out total")
    return "total_timeout"


def lingered(seen: Seen) -> str:
    """The answer counts; the process was ended."""
    seen.ended("succeeded linger")
    if seen.job["result"] != ANSWER:
        raise Missed(f"its answer was lost: {seen.job['result']!r}")
    return "linger_timeout"


def flooded(seen: Seen) -> str:
    """Stopped, and nothing of what it wrote is missing without a word."""
    seen.ended("failed output_limit", "cancelled cancelled")
    return f"{'output_limit' if seen.run['reason'] == 'output_limit' else 'cancel'}, {_kept(seen)}"


def long_line(seen: Seen) -> str:
    """All of it is counted; what is stored is whole, or says what was dropped."""
    seen.ended("succeeded ok")
    said = seen.run["output"]["stdout"]
    if said["bytes"] != LINE + 1:
        raise Missed(f"{said['bytes']} bytes were counted, not {LINE + 1}")
    return _kept(seen)


def _kept(seen: Seen) -> str:
    """No more is stored than head and tail, and the run says how much was dropped."""
    said = seen.run["output"]["stdout"]
    dropped = said.get("dropped", 0)
    if seen.stored + dropped < said["bytes"]:
        raise Missed(f"{seen.stored} of {said['bytes']} bytes are stored, and nobody says where the rest is")
    if seen.stored > KEPT:
        raise Missed(f"{seen.stored} bytes are stored, head and tail are {KEPT}")
    return f"{said['bytes'] >> 20} MiB written, {seen.stored >> 20} stored" + (
        f", {dropped >> 20} dropped loudly" if dropped else ""
    )


def exact(seen: Seen) -> str:
    """Byte for byte; and the event that no column takes became one that it does."""
    seen.ended("succeeded ok")
    if seen.digest != hashlib.sha256(PLAIN).hexdigest():
        raise Missed(f"what is stored differs from what was written: {seen.stored} bytes, not {len(PLAIN)}")
    if "message" not in seen.kinds:
        raise Missed("its event was lost")
    return "stored byte for byte, sha256 compared"


def lied(seen: Seen) -> str:
    """Its word counts, not its exit code."""
    seen.ended("failed agent_error")
    return "agent_error: its own last word"


def read_all(seen: Seen) -> str:
    """It saw the end of its input."""
    seen.ended("succeeded ok")
    if (count := seen.phases["read"]["bytes"]) != len(LONG_PROMPT):
        raise Missed(f"it read {count} bytes of {len(LONG_PROMPT)}")
    return "stdin is a file with an end"


def oom(seen: Seen) -> str:
    """The kernel stopped it, all of it."""
    seen.ended("failed oom")
    return f"memory.max, at {seen.used.get('memory_peak', 0) >> 20} MiB"


def bounded(seen: Seen) -> str:
    """The limit held."""
    seen.ended("succeeded ok")
    if seen.most > BOMB // 2:
        raise Missed(f"{seen.most} processes lived at once, the limit was {BOMB // 2}")
    return f"pids.max, {seen.used.get('pids_peak', seen.most)} processes at most"


def survived(seen: Seen) -> str:
    """It was left alone for as long as it worked."""
    seen.ended("succeeded ok")
    if seen.used.get("seconds", 0) < 1:
        raise Missed(f"it was over after {seen.used.get('seconds')} s, before its work was done")
    return "only the end of the tree is the end"


def thawed(seen: Seen) -> str:
    """Killed although it was frozen."""
    seen.ended("cancelled cancelled")
    return "it may not freeze itself" if "forbidden" in seen.phases else f"thawed, then killed ({seen.rung})"


TIMED = {"total_timeout": SOON, "stop_grace": GRACE}
STUBBORN = {"stop_grace": GRACE}
CASES = (
    Case("setsid", "a child in a session of its own", "ended with its leader", swept(2), family=2),
    Case("double_fork", "a daemon: fork, setsid, fork", "ended with its leader", swept(2), family=2),
    Case("clean_daemon", "a daemon with a clean environment", "ended with its leader", swept(2), escapes=("subreaper",), family=2),
    Case("ignore_term", "ignores TERM, HUP and INT, with a child", "cancelled: killed after the grace", killed, STUBBORN, cancel=True),
    Case("stop_itself", "stops itself with SIGSTOP", "timed out: killed", total, TIMED),
    Case("hold_output", "a child holds stdout and stderr open", "the leader's end is the end", swept(2), family=2),
    Case("close_output", "closes its own stdout and stderr", "goes on to its end", survived),
    Case("epipe", "spins on a broken pipe", "timed out: ended", total, TIMED),
    Case("long_line", "a line of 50 MB", "counted whole; head and tail kept", long_line),
    Case("odd_bytes", "NUL, invalid UTF-8, lone surrogates, NaN", "stored as it was", exact),
    Case("flood", "output without end", "cancelled: stopped; head and tail kept", flooded, STUBBORN, cancel=True),
    Case("lie", "exits 0 and says that it failed", "failed", lied),
    Case("linger", "answers, then does not go", "ended; the answer counts", lingered,
         {"linger_timeout": SOON, "stop_grace": GRACE}),
    Case("read_stdin", "reads stdin to its end", "there is an end", read_all, prompt=LONG_PROMPT),
    Case("bomb", f"{BOMB} processes, forked by each other", "ended with their leader", swept(BOMB), family=BOMB),
    Case("bomb", "a fork bomb under a limit", "the limit holds, all are ended", bounded,
         {"limits": {"pids_max": BOMB // 2}}, needs="pids", family=BOMB // 2, name="bomb-limited"),
    Case("hog", "takes memory without end", "killed by its limit", oom, {"limits": {"memory_max": 96 << 20}}, needs="memory"),
    Case("freeze", "freezes its own cgroup", "thawed and killed", thawed, STUBBORN, cancel=True, needs="cgroup"),
    Case("change_group", "a child leaves the cgroup and the session", "ended with its leader", swept(2), needs="cgroup", family=2),
    Case("vanish", "that, as a daemon with a clean environment", "ended with its leader", swept(2), needs="cgroup",
         escapes=("cgroup",), family=2),
    Case("nap", "the wall clock jumps an hour ahead and back: work", "nobody ends it", survived,
         {"total_timeout": timedelta(minutes=10)}, queue="torture-clock"),
    Case("idle", "the wall clock jumps: a timeout", "it still comes in time", total, TIMED, queue="torture-clock", name="idle-clock"),
)  # fmt: skip
