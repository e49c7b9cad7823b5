"""Structured logs: one JSON object a line for machines, or one readable line for eyes. If it fails, a line is lost."""

import json
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from io import TextIOWrapper
from math import isfinite
from typing import Any

import structlog

from leasehold.settings import redact_dsn

EVENTS: dict[str, str] = {
    "daemon_starting": "The daemon begins: version, instance, state directory.",
    "daemon_ready": "Everything is in place: claiming begins.",
    "daemon_stopped": "The daemon has let go of everything.",
    "schema_newer_tolerated": "The schema is newer than this program, but not in a way that breaks it.",
    "worker_registered": "A life of this daemon began; the worker id is in every line about its runs.",
    "runs_adopted": "What the last life left: taken over, ended meanwhile, unknown to the database.",
    "runs_taken_up": "Runs that the database says are ours and we did not know: an answer was lost.",
    "run_claimed": "A job became a run here.",
    "run_adopted": "A run of an earlier life is followed from here on.",
    "run_spawned": "The agent's process lives.",
    "run_held": "The agent writes faster than it can be read: it is held until we have caught up. Said once a run.",
    "run_deaf": "The agent cannot be told anything any more: its stdin is closed, or never was one to write to.",
    "run_unheard": "The keeper would not pass on what the agent should be told next; the run is stopped.",
    "run_stopping": "The agent is asked to end, and why.",
    "run_suspect": "A run has been silent for most of its clock; it is looked at before anything is stopped.",
    "run_unkillable": "A tree survives SIGKILL: its place stays taken until it is gone.",
    "limit_unenforced": "The agent asks for a limit that this host cannot enforce.",
    "run_exited": "The process tree is gone, everything it wrote is stored.",
    "run_settled": "The outcome is in the database; where the job goes from here.",
    "run_late": "The outcome of a run that had been given up as lost arrived after all.",
    "run_refused": "The database refused our word on a run: it has ended or belongs to somebody else.",
    "run_lost": "A run is not ours any more; its tree is stopped.",
    "run_crashed": "A mistake of ours while watching a run; the run is failed, the daemon goes on.",
    "event_unstorable": "Postgres could not store something an agent said; a notice stands in its place.",
    "claim_decided": "What the claim found, and what it decided.",
    "renewal_failed": "The lease could not be renewed; how long the agents have left.",
    "extend_failed": "The keeper did not hear of a renewal; the next one tells it again.",
    "lease_lost": "Our lease had ended in the database: all runs here are stopped, then a new life begins.",
    "reaped": "A run of a dead worker was ended; where its job goes from here.",
    "job_expired": "A job waited longer than its agent's queue_timeout and was ended.",
    "interaction_expired": "Nobody answered an agent in its answer_timeout: it was told no, its job is cancelled, or it is asked again.",
    "schedule_fired": "A tick of a schedule asked for a job: which, and what became of the ask.",
    "schedule_missed": "Ticks of a schedule had passed before anybody could fire them; its policy left some out.",
    "schedule_failed": "A schedule could not ask for its job, or has no next tick; the error is in its row.",
    "listen_lost": "LISTEN lost its connection; polling until it is back.",
    "listen_ready": "LISTEN is back.",
    "database_away": "Postgres does not answer; said once until it does.",
    "database_back": "Postgres answers again, and after how long.",
    "disk_short": "Less than `disk_reserve` is free in the state directory; nothing is claimed until there is room.",
    "disk_roomy": "There is room again.",
    "keeper_ready": "The keeper answers: its version and the containment in force.",
    "keeper_awaited": "No keeper answers yet; said once while the daemon starts.",
    "keeper_started": "No keeper answered, so one was started.",
    "keeper_lost": "The keeper does not answer; nothing is claimed until it does.",
    "keeper_back": "The keeper answers again.",
    "keeper_older": "The keeper is of an earlier release: agents that have to be spoken to are not started.",
    "keeper_superseded": "Another daemon has taken over the keeper: this one leaves.",
    "last_resort_kill": "The keeper is away and a deadline is near: the daemon kills the tree itself.",
    "stop_requested": "A signal asked us to leave.",
    "detaching": "Leaving the agents to the keeper and the next daemon.",
    "draining": "Waiting for the agents to end.",
    "interrupting": "Stopping the agents; no attempt is used.",
    "deregister_failed": "The end of this life could not be written; its lease will run out.",
    "rows_removed": "Rows past their time were removed: of which rule, how many.",
    "directory_removed": "A directory that the database wanted gone is gone.",
    "removal_failed": "A directory that has to go could not be removed; it is tried again, later and later.",
    "orphans_found": "Run directories that no run needs any more; they go after a rest.",
    "forget_failed": "A settled run's directory could not be removed.",
    "metrics_ready": "The metrics may be read over HTTP, and where.",
    "metrics_failed": "A request for the metrics met a mistake of ours; the daemon goes on.",
    "chore_failed": "A periodic chore failed; the next turn tries again.",
    "library": "A line from a library we use.",
}
"""The closed list of event names. Every line has `ts`, `level`, `event`; every line about a run has its identity too."""

PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
GLYPHS = {"debug": "·", "info": "•", "warning": "▲", "error": "✖", "critical": "✖"}
COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31;1", "critical": "31;1"}
IDENTITY = ("job_id", "run_id", "attempt", "agent")
HIDDEN = frozenset({"ts", "level", "event", "tenant", "worker", *IDENTITY})


def configure(form: str, level: str) -> None:
    """Set up all logging of this process: `form` is `json`, `pretty` or `auto` (pretty on a terminal)."""
    pretty = form == "pretty" or (form == "auto" and sys.stdout.isatty())
    if isinstance(
        sys.stdout, TextIOWrapper
    ):  # JSON is UTF-8 whatever the locale says; eyes get what their terminal can
        sys.stdout.reconfigure(encoding=None if pretty else "utf-8", errors="replace")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _redact,
            _Pretty(colours=sys.stdout.isatty()) if pretty else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Stdout,
        cache_logger_on_first_use=False,
    )
    logging.getLogger("asyncpg").setLevel(logging.ERROR)  # its pool tells of every retry; database_away says it once
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)


class _Stdout:
    """Where lines go. Nobody reads them, or the disk is full: the line is lost, the agents are no worse for it."""

    def __init__(self, *_names: object) -> None:
        self._stdout = sys.stdout

    def msg(self, line: str) -> None:
        try:
            self._stdout.write(line + "\n")
            self._stdout.flush()
        except BrokenPipeError:  # for good: without this, Python's last flush would turn our exit code into 120
            with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 a device, not a path
                os.dup2(nowhere.fileno(), self._stdout.fileno())
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = msg


class _Libraries(logging.Handler):
    """Lines of libraries come in the same form as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library", logger=record.name, message=record.getMessage())


def _redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Everywhere in the line: an exception or a list can quote an address too."""
    for name, value in line.items():
        line[name] = _without_password(value)
    return line


def _without_password(value: Any) -> Any:
    if isinstance(value, bool | int | None) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _without_password(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_password(item) for item in value]
    text = str(value)
    return redact_dsn(text) if "://" in text or "pass" in text.lower() else text


def _as_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    first = {name: line.pop(name) for name in ("ts", "level", "event") if name in line}
    text = _priority(str(first.get("level"))) + json.dumps({**first, **line}, default=str, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate: JSON's own escape, and printable


def _priority(level: str) -> str:
    """What `journalctl -p` goes by; the journal takes it off again. Only when stdout is the journal."""
    return PRIORITIES.get(level, "") if "JOURNAL_STREAM" in os.environ else ""


class _Pretty:
    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
        return render(line, colours=self._colours)


def render(line: Mapping[str, Any], *, colours: bool) -> str:
    """One log line for eyes: time, what happened, to which run, and the rest."""

    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colours else text

    level = str(line.get("level", "info"))
    when = str(line.get("ts", ""))[11:19]
    who = "/".join(str(line[name]) for name in IDENTITY if name in line)
    rest = " ".join(f"{name}={_value(line[name])}" for name in line if name not in HIDDEN and line[name] is not None)
    colour = COLOURS.get(level, "0")
    event = f"{line.get('event', '')!s:<17}"
    head = f"{paint('2', when)} {paint(colour, GLYPHS.get(level, '•'))} {paint('1', event)}"
    return f"{head} {paint('36', who.ljust(22))} {paint('2' if level == 'debug' else '0', rest)}".rstrip()


def _value(value: object) -> str:
    text = str(value)
    if text.isprintable() and " " not in text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else "\ufffd" for char in quoted)  # an agent's words drive no terminal
