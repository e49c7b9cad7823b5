"""From how a process tree ended to a verdict on its run. Pure; the retry policy of each reason is SQL's."""

from signal import Signals

from leasehold.agents.base import Adapter
from leasehold.events.clean import clean, clean_text
from leasehold.models import Exit, Verdict

ENDED: dict[str, Verdict] = {
    "cancelled": Verdict("cancelled", "cancelled", "stopped because its job was cancelled"),
    "total": Verdict("timed_out", "total", "stopped after the agent's total_timeout"),
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
}


def judge(ending: Exit, adapter: Adapter) -> Verdict:
    """The keeper's word first, then the exit status, then what the agent said of itself (X24)."""
    if ending.why in ENDED:
        return ENDED[ending.why]
    if ending.error is not None:
        reason = SPAWN_REASONS.get(ending.error.get("kind", ""), "spawn_failed")
        return Verdict("failed", reason, clean_text(ending.error.get("message", "")))
    if ending.why != "exit":
        return Verdict("interrupted", "stopped", clean_text(f"stopped: {ending.why}"))
    if ending.signal is not None:
        return _killed(ending)
    said = adapter.verdict(ending.exit_code or 0)
    message = clean_text(said.message) if said.message is not None else None
    return Verdict(said.outcome, said.reason, message, clean(said.result))


def _killed(ending: Exit) -> Verdict:
    if ending.usage.get("oom_kills"):
        return Verdict("failed", "oom", "killed by the kernel: it used more memory than its limit")
    number = ending.signal or 0
    name = Signals(number).name if number in set(Signals) else f"signal {number}"
    return Verdict("failed", "signal", f"ended by {name}")
