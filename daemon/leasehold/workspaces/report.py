"""What a stage has left in the run directory, which belongs to the agent: read as what anybody may have written. Raises nothing."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leasehold.events.clean import clean, clean_text
from leasehold.models import Outcome, Verdict
from leasehold.workspaces.paths import normalise

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
LIMIT = 4 << 20
STAGE_LIMIT = 256 << 10
"""Bytes of stage.json, which is read again and again."""
DIFF_LIMIT = 16 << 20
KINDS = ("added", "modified", "deleted", "renamed")
FAILED: Mapping[str, tuple[Outcome, str]] = {
    "workspace": ("failed", "workspace_failed"),
    "timeout": ("timed_out", "workspace_timeout"),
    "not_found": ("failed", "spawn_not_found"),
    "denied": ("failed", "spawn_denied"),
    "spawn": ("failed", "spawn_failed"),
    "busy": ("interrupted", "credential_busy"),
    "config": ("failed", "config_failed"),
    "auth": ("failed", "auth"),
    "disk_full": ("interrupted", "disk_full"),
}
"""What a stage says it failed of, as an outcome and its reason."""


@dataclass(frozen=True, slots=True)
class Staged:
    """stage.json: how far it has come."""

    phase: str = "preparing"
    agent_at: float | None = None  # CLOCK_BOOTTIME
    said: int = 0  # bytes of stderr that are not the agent's
    facts: Mapping[str, Any] = field(default_factory=dict)
    failed: Verdict | None = None


def read_staged(directory: Path) -> Staged:
    """As far as it can be read."""
    said = _object(directory / "stage.json", STAGE_LIMIT)
    at, size = said.get("agent_at"), said.get("agent_stderr")
    facts = said.get("workspace")
    return Staged(
        phase=str(said.get("phase", "preparing")),
        agent_at=float(at) if isinstance(at, int | float) else None,
        said=size if isinstance(size, int) and size >= 0 else 0,
        facts=clean(facts) if isinstance(facts, dict) else {},
        failed=None if "recording_at" in said else _failed(said.get("failed")),
    )


def read_changes(directory: Path) -> tuple[list[dict[str, str]], str] | None:
    """Paths that can be meant and what became of each, and the diff; None: nothing was recorded."""
    said = _object(directory / "changes.json")
    if not said:
        return None
    given = said.get("changes")
    listed = [change for each in given if (change := _change(each))] if isinstance(given, list) else []
    diff = (_read(directory / "final.diff", DIFF_LIMIT) or b"").decode("utf-8", "replace").replace("\0", "\ufffd")
    return listed, diff


def _change(said: object) -> dict[str, str] | None:
    if not isinstance(said, dict) or said.get("change_type") not in KINDS:
        return None
    try:
        change = {"path": clean_text(normalise(str(said["path"]))), "change_type": str(said["change_type"])}
        if change["change_type"] == "renamed":
            change["old_path"] = clean_text(normalise(str(said["old_path"])))
    except (KeyError, ValueError):
        return None
    return change


def _failed(said: object) -> Verdict | None:
    if not isinstance(said, dict):
        return None
    outcome, reason = FAILED.get(str(said.get("kind")), FAILED["workspace"])
    return Verdict(outcome, reason, clean_text(f"{said.get('step')}: {said.get('message')}"))


def _object(path: Path, limit: int = LIMIT) -> Mapping[str, Any]:
    try:
        value = json.loads(_read(path, limit) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes of a plain file, if it is one."""
    try:
        fd = os.open(path, FLAGS)
    except OSError:
        return None
    try:
        return os.pread(fd, limit, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)
