"""The misbehaving agent, one function per vice; standard library only. If it fails, one row of the table says so.

Each process of it, and whatever it forks or executes, carries MARK (a path) in its argv, so that it can be found in
/proc without anybody's help. Every vice that could hurt the host is bounded by itself.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

SEEN = 10.0
"""Seconds at most that a leader stays after it has forked, so that the observer sees the family together."""
LIFE = 120.0
LINE = 50 * 1024 * 1024
FLOOD = 16 * 1024 * 1024
"""Bytes that the endless writer writes as fast as it can; then it goes on for ever, slowly."""
BOMB = 64
HOG = 512 * 1024 * 1024
PLAIN = b"nul \0 bad \xff\xfe surrogate \xed\xa0\x80 esc \x1b[2J\n{not json\n\r\n" + b"\xc3\n" + b"no newline: \xf0\x9f"
EVENTS = rb"""{"type": "message", "text": "\u0000 \ud800", "n": NaN, "big": 1e999999}""" + b"\n"
ANSWER = {"sum": 3}


def say(phase: str, **facts: object) -> None:
    """A line that becomes an event; `at` is the host's time."""
    os.write(1, json.dumps({"type": "progress", "phase": phase, "at": time.time(), **facts}).encode() + b"\n")


def leave(code: int = 0) -> NoReturn:
    """End as leader, saying when."""
    say("leaving")
    os._exit(code)


def leave_seen(mark: str) -> NoReturn:
    """The same, once the observer has seen the family: it touches the file that the mark names."""
    until = time.monotonic() + SEEN
    while time.monotonic() < until and not Path(mark).exists():
        time.sleep(0.02)
    leave()


def idle() -> NoReturn:
    """Sit there, far longer than anybody looks; not for ever, because some host may let it escape."""
    time.sleep(LIFE)
    os._exit(9)


def fork(work: Callable[[], object]) -> int:
    """A child that does `work` and nothing else."""
    if pid := os.fork():
        return pid
    try:
        work()
    finally:
        os._exit(0)


def elsewhere(work: Callable[[], object]) -> int:
    """A child in a session of its own."""

    def go() -> None:
        os.setsid()
        work()

    return fork(go)


def setsid(mark: str) -> None:
    """A child in a session of its own outlives its parent."""
    elsewhere(idle)
    leave_seen(mark)


def double_fork(mark: str) -> None:
    """A daemon, as the books say: fork, setsid, fork."""
    os.waitpid(elsewhere(lambda: fork(idle)), 0)
    leave_seen(mark)


def clean_daemon(mark: str) -> None:
    """The same, executed anew with an empty environment: no marker of ours is left on it."""
    again = [sys.executable, "-m", "leasehold.torture", "idle", mark]
    os.waitpid(elsewhere(lambda: fork(lambda: os.execve(again[0], again, {}))), 0)  # noqa: S606
    leave_seen(mark)


def ignore_term(_mark: str) -> None:
    """Neither the leader nor its child listens to TERM, HUP or INT."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    fork(idle)
    say("ready")
    idle()


def hold_output(mark: str) -> None:
    """A child keeps stdout and stderr open: whoever waits for their end waits for ever."""
    fork(idle)
    leave_seen(mark)


def long_line(_mark: str) -> None:
    """50 MB without a newline."""
    block = b"x" * (1024 * 1024)
    for _ in range(LINE // len(block)):
        _write(block)
    _write(b"\n")
    leave()


def odd_bytes(_mark: str) -> None:
    """What no text column takes."""
    _write(EVENTS + PLAIN)


def flood(_mark: str) -> None:
    """Output without end."""
    say("ready")
    block = b"All work and no play makes an agent a dull process.\n" * 1260
    for _ in range(FLOOD // len(block)):
        _write(block)
    began = time.monotonic()
    while time.monotonic() < began + LIFE:
        _write(block)
        time.sleep(0.05)


def epipe(_mark: str) -> None:
    """Writes to a pipe that nobody reads any more, and tries again, and again."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.close(reader)
    say("ready")
    began = time.monotonic()
    while time.monotonic() < began + LIFE:
        try:
            os.write(writer, b"x")
        except BrokenPipeError:
            continue


def lie(_mark: str) -> None:
    """Says that it failed, and exits 0."""
    _write(b'{"type": "result", "ok": false, "message": "I could not do it"}\n')
    leave()


def linger(_mark: str) -> None:
    """Has answered, and does not go."""
    _write(json.dumps({"type": "result", "value": ANSWER}).encode() + b"\n")
    idle()


def read_stdin(_mark: str) -> None:
    """Reads its input to the end, before anything else."""
    say("read", bytes=len(sys.stdin.buffer.read()))
    leave()


def bomb(mark: str) -> None:
    """Every process forks for as long as it can; a pipe with tokens bounds it, whatever the host enforces."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"." * BOMB)

    def explode() -> None:
        try:
            while os.read(reader, 1):
                fork(explode)
        except OSError:  # no token is left, or the limit is reached
            pass
        idle()

    fork(explode)
    leave_seen(mark)


def hog(_mark: str) -> None:
    """Takes memory until it is stopped; past 512 MiB it stops itself, and then nobody has stopped it."""
    resource.setrlimit(resource.RLIMIT_AS, (2 * HOG, 2 * HOG))
    taken = [b"x" * (8 << 20) for _ in range(HOG // (8 << 20))]
    say("never stopped", blocks=len(taken))
    leave()


def stop_itself(_mark: str) -> None:
    """A stopped process hears no TERM."""
    say("ready")
    os.kill(os.getpid(), signal.SIGSTOP)
    idle()


def close_output(_mark: str) -> None:
    """The end of its output is not its own end."""
    say("ready")
    os.close(1)
    os.close(2)
    time.sleep(1.0)
    os._exit(0)


def nap(_mark: str) -> None:
    """Works for two seconds."""
    time.sleep(2.0)
    leave()


def freeze(_mark: str) -> None:
    """Freezes its own cgroup: no signal reaches it, KILL included, until somebody thaws it."""
    fork(idle)
    say("ready")
    _group("cgroup.freeze", "1")
    idle()


def change_group(mark: str) -> None:
    """Its child leaves the cgroup of the run, and the session."""

    def go() -> None:
        _group("../../cgroup.procs", "0")
        idle()

    elsewhere(go)
    leave_seen(mark)


def vanish(mark: str) -> None:
    """All of it at once: another cgroup, another session, no parent, no environment of ours, another score."""
    again = [sys.executable, "-m", "leasehold.torture", "idle", mark]

    def go() -> None:
        _group("../../cgroup.procs", "0")
        Path("/proc/self/oom_score_adj").write_text("999", encoding="ascii")
        fork(lambda: os.execve(again[0], again, {}))  # noqa: S606

    os.waitpid(elsewhere(go), 0)
    leave_seen(mark)


def _group(name: str, value: str) -> None:
    """Write into our own cgroup; without the right to, say so."""
    own = next(
        line[3:].strip() for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    mount = next(path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if Path(path, "cgroup.procs").exists())
    try:
        Path(f"{mount}{own}", name).write_text(value, encoding="ascii")
    except OSError as error:
        say("forbidden", error=str(error))


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(1, content) :]


VICES: tuple[Callable[[str], None], ...] = (
    setsid, double_fork, clean_daemon, ignore_term, hold_output, long_line, odd_bytes, flood, epipe, lie, linger,
    read_stdin, bomb, hog, stop_itself, close_output, nap, freeze, change_group, vanish,
)  # fmt: skip
KINDS = {vice.__name__: vice for vice in VICES} | {"idle": lambda _mark: idle()}


def misbehave(kind: str, mark: str) -> None:
    """Do one of them."""
    KINDS[kind](mark)
