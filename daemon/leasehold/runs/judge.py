"""From how a process tree ended to a verdict on its run. Pure; the retry policy of each reason is SQL's."""

from dataclasses import replace
from signal import Signals

from leasehold.agents.base import Adapter
from leasehold.events.clean import clean, clean_text
from leasehold.models import Exit, Outcome, Verdict

ENDED: dict[str, Verdict] = {
    "cancelled": Verdict("cancelled", "cancelled", "stopped because its job was cancelled"),
    "total": Verdict("timed_out", "total", "stopped after the agent's total_timeout"),
    "idle": Verdict(
        "timed_out", "idle", "stopped: it wrote nothing for the agent's idle_timeout and did no work either"
    ),
    "first_output": Verdict("timed_out", "first_output", "stopped: it wrote nothing at all for first_output_timeout"),
    "prepare": Verdict("timed_out", "workspace_timeout", "stopped: its workspace was not ready after prepare_timeout"),
    "spawn": Verdict("timed_out", "spawn", "not started: the keeper did not answer for the agent's spawn_timeout"),
    "output_limit": Verdict("failed", "output_limit", "stopped: it wrote more than the agent's output_limit"),
    "unheard": Verdict("failed", "protocol", "stopped: what it should have been told next could not be told"),
    "unasked": Verdict(
        "blocked", "question", "stopped: it waits for an answer to something that nobody could be asked"
    ),
    "budget": Verdict("blocked", "budget", "stopped: it has cost more than its budget_usd"),
    "session_evicted": Verdict("failed", "session_evicted", "not started: what its session had kept was removed"),
    "interrupt": Verdict("interrupted", "daemon_restart", "stopped because the daemon stopped"),
    "deadline": Verdict("interrupted", "lease_lost", "stopped because its lease could not be renewed in time"),
    "lost": Verdict("interrupted", "lease_lost", "stopped because its lease had passed to somebody else"),
    "keeper_lost": Verdict("lost", "keeper_lost", "the keeper ended under it"),
    "keeper_stopped": Verdict("interrupted", "keeper_lost", "stopped because the keeper was stopped"),
    "host_reboot": Verdict("lost", "host_reboot", "the host was rebooted under it"),
    "daemon_error": Verdict("failed", "daemon_error", "the daemon met an error of its own while it watched this run"),
}
"""What ended it, when it did not end by itself."""

SPAWN_REASONS = {
    "not_found": "spawn_not_found",
    "denied": "spawn_denied",
    "cwd_missing": "workspace_missing",
    "cwd_denied": "workspace_denied",
    "disk_full": "disk_full",
    "keeper_older": "spawn_failed",
}


NO_ROOM = 1024 * 1024
"""Bytes free at the end of a run that are as good as none."""


def held_to(limit: int | None, ending: Exit) -> Exit:
    """The same ending, unless the agent left by itself with more output than its `output_limit`: faster than our look."""
    if ending.why == "exit" and limit is not None and ending.stdout_bytes + ending.stderr_bytes > limit:
        return replace(ending, why="output_limit")
    return ending


def judge(ending: Exit, adapter: Adapter) -> Verdict:
    """The keeper's word first, then the exit status, then what the agent said of itself (X24)."""
    if ending.why in ENDED:
        return ENDED[ending.why]
    if ending.error is not None:
        reason = SPAWN_REASONS.get(ending.error.get("kind", ""), "spawn_failed")
        outcome: Outcome = "interrupted" if reason == "disk_full" else "failed"  # the host's trouble, not the job's
        return Verdict(outcome, reason, clean_text(ending.error.get("message", "")))
    if ending.why == "linger":
        return _lingered(adapter)
    if ending.why != "exit":
        return Verdict("interrupted", "stopped", clean_text(f"stopped: {ending.why}"))
    failed = ending.signal is not None or ending.exit_code != 0
    if failed and ending.disk_free is not None and ending.disk_free < NO_ROOM:
        return Verdict("interrupted", "disk_full", "it failed while the disk of its run directory was full")
    if ending.signal is not None:
        return _killed(ending)
    said = adapter.verdict(ending.exit_code or 0)
    message = clean_text(said.message) if said.message is not None else None
    return Verdict(said.outcome, said.reason, message, clean(said.result))


def _lingered(adapter: Adapter) -> Verdict:
    """Its result stands; that it would not leave is only noted."""
    said = adapter.verdict(0)
    reason = "linger" if said.outcome == "succeeded" else said.reason
    message = said.message or "stopped: it gave its result and did not leave for the agent's linger_timeout"
    return Verdict(said.outcome, reason, clean_text(message), clean(said.result))


def _killed(ending: Exit) -> Verdict:
    if ending.usage.get("oom_kills"):
        return Verdict("failed", "oom", "killed by the kernel: it used more memory than its limit")
    number = ending.signal or 0
    name = Signals(number).name if number in set(Signals) else f"signal {number}"
    return Verdict("failed", "signal", f"ended by {name}")
