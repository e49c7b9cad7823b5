"""What an error of an ACP agent means: the protocol leaves it to code, prose and whatever lies beside them. Pure."""

import re
from typing import Any

AUTH_REQUIRED = -32000
"""The one code of the protocol that has a meaning of its own here."""
KINDS = {
    "authentication_failed": "auth", "oauth_org_not_allowed": "auth", "rate_limit": "rate_limit",
    "billing_error": "quota", "usageLimitExceeded": "quota", "contextWindowExceeded": "context_overflow",
    "ContextOverflowError": "context_overflow", "unauthorized": "auth",
}  # fmt: skip
"""Names that agents put into `data`, whatever the field is called."""
STATUS = {401: "auth", 403: "auth", 429: "rate_limit"}
WORDS = (
    ("quota", re.compile(r"quota|usage limit|insufficient_quota|credit balance|billing", re.IGNORECASE)),
    ("rate_limit", re.compile(r"\b429\b|rate.?limit|too many requests|not so fast", re.IGNORECASE)),
    ("context_overflow", re.compile(r"context window|context_length_exceeded|prompt is too long", re.IGNORECASE)),
    ("auth", re.compile(r"\b40[13]\b|api.?key|\bno key\b|unauthori[sz]ed|authenticat|log ?in\b", re.IGNORECASE)),
)
"""The first that its prose matches."""


def words_of(error: Any) -> str:
    """Its prose: the message, and the details that some hide behind "Internal error"."""
    if not isinstance(error, dict):
        return str(error)
    data = error.get("data")
    details = data.get("details") or data.get("message") if isinstance(data, dict) else data
    parts = [str(error.get("message") or "an error"), details if isinstance(details, str) else None]
    return ": ".join(part for part in parts if part)


def reason_of(error: Any) -> str | None:
    """The reason of an error answer; None: nothing that has a name."""
    said = error if isinstance(error, dict) else {}
    if said.get("code") == AUTH_REQUIRED:
        return "auth"
    by_name = _named(said.get("data")) or STATUS.get(_number(said.get("code")))
    by_words = reason_of_words(words_of(error))
    return by_words if by_words == "quota" and by_name == "rate_limit" else by_name or by_words


def reason_of_words(words: str) -> str | None:
    """What prose means."""
    return next((reason for reason, pattern in WORDS if pattern.search(words)), None)


def status_of(data: Any) -> int | None:
    """The HTTP status somewhere in it."""
    if not isinstance(data, dict):
        return None
    found = data.get("httpStatusCode")
    return found if isinstance(found, int) else next((at for v in data.values() if (at := status_of(v))), None)


def _named(data: Any) -> str | None:
    """A kind by its name, at the top of `data` or one below; else the HTTP status beside it."""
    if not isinstance(data, dict):
        return None
    names = [name for name in (*data.values(), *data) if isinstance(name, str)]
    return next((KINDS[name] for name in names if name in KINDS), None) or STATUS.get(status_of(data) or 0)


def _number(code: Any) -> int:
    return int(code) if isinstance(code, int | str) and str(code).isdigit() else 0
