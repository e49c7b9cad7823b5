"""Make any decoded value fit for jsonb and text: what Postgres cannot store is replaced, never refused. Pure."""

from math import isfinite
from typing import Any

DEPTH = 64
"""Levels of nesting that are kept; what lies deeper becomes a note."""
TEXT_LIMIT = 256 * 1024
"""Characters of one message that are kept."""
WHOLE_LIMIT = 8 * 1024 * 1024
"""Characters of what the database itself cuts, and says so."""


def clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """No NUL, no lone surrogate (Postgres stores neither), no more than `limit`."""
    text = text.replace("\x00", "\ufffd")
    text = text.encode("utf-8", "replace").decode("utf-8") if _has_surrogate(text) else text
    return text if len(text) <= limit else f"{text[:limit]} [cut: {len(text)} characters]"


def clean(value: Any, depth: int = 0) -> Any:
    """The same value with every key and string clean, no NaN or infinity, and bounded depth and numbers."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict | list) and depth >= DEPTH:
        return "[cut: nested too deep]"
    if isinstance(value, dict):
        return {clean_text(str(key)): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 2048:
        return hex(value)[:TEXT_LIMIT]
    return value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
