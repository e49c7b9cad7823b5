"""What Codex's app server says of trouble: typed errors, retries, limits of the account. Pure; if it fails, one run fails."""

import re
from collections.abc import Mapping
from typing import Any

from leasehold.agents.codex_exec import reason_of as reason_of_words
from leasehold.models import Event

NAMES = {
    "contextWindowExceeded": "context_overflow", "usageLimitExceeded": "quota", "unauthorized": "auth",
    "sessionBudgetExceeded": "budget", "rateLimitExceeded": "rate_limit", "serverOverloaded": "rate_limit",
    "flexUnavailable": "rate_limit", "policyCapacityUnavailable": "rate_limit", "cyberPolicy": "refusal",
    "misalignmentPolicyViolation": "refusal", "inferenceHookDenied": "refusal",
}  # fmt: skip
"""Of `codexErrorInfo`. What is not here has a status, or no name at all."""
STATUS = {401: "auth", 403: "auth", 429: "rate_limit"}
ATTEMPT = re.compile(r"(\d+)/(\d+)")
FULL = 100.0


def status_of(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error tells of."""
    info = error.get("codexErrorInfo")
    parts = [part for part in info.values() if isinstance(part, dict)] if isinstance(info, dict) else []
    found = next((part.get("httpStatusCode") for part in parts), None)
    return found if isinstance(found, int) else None


def reason_of(error: Mapping[str, Any]) -> str | None:
    """What an error means: its type first, then its status, then its prose; None: nothing that has a name."""
    info = error.get("codexErrorInfo")
    names = [info] if isinstance(info, str) else list(info) if isinstance(info, dict) else []
    named = next((NAMES[name] for name in names if name in NAMES), None)
    return named or STATUS.get(status_of(error) or 0) or reason_of_words(words_of(error))


def words_of(error: Mapping[str, Any]) -> str:
    """Its message and what is added to it."""
    parts = [error.get("message"), error.get("additionalDetails")]
    return ": ".join(part for part in parts if isinstance(part, str) and part)


def retry(error: Mapping[str, Any]) -> Event:
    """It tries again by itself."""
    found = ATTEMPT.search(str(error.get("message")))
    counted = {"attempt": int(found[1]), "of": int(found[2])} if found else {}
    kind = "rate_limited" if reason_of(error) == "rate_limit" else "retrying"
    return Event(kind, words_of(error), {**counted, "http_status": status_of(error)}, "warning")


def limits(snapshot: Mapping[str, Any]) -> tuple[str, Any] | None:
    """How the account stands: `reached` or `allowed`, and when what is used up comes back. None: it has no windows."""
    windows = [window for name in ("primary", "secondary") if isinstance(window := snapshot.get(name), dict)]
    if not windows:
        return None
    full = [window for window in windows if float(window.get("usedPercent") or 0) >= FULL]
    if not full and snapshot.get("rateLimitReachedType"):
        full = windows
    resets = [at for window in full if isinstance(at := window.get("resetsAt"), int | float)]
    return ("reached" if full else "allowed"), max(resets, default=None)
