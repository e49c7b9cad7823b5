"""Where each kind of agent looks for its configuration, and what is to be prepared for a run that has its own. Pure; if it fails, one run fails."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from leasehold.models import Run

HERE = "{config}"
"""In an agent's env: its private configuration directory."""
ANY = {
    "HOME": "{dir}",
    "XDG_CONFIG_HOME": "{dir}/.config",
    "XDG_DATA_HOME": "{dir}/.local/share",
    "XDG_STATE_HOME": "{dir}/.local/state",
    "XDG_CACHE_HOME": "{dir}/.cache",
}
"""For programs that know no variable of their own."""
HOMES: Mapping[str, Mapping[str, str]] = {
    "codex": {"CODEX_HOME": "{dir}"},
    "codex-exec": {"CODEX_HOME": "{dir}"},
    "claude": {"CLAUDE_CONFIG_DIR": "{dir}"},
}
CREDENTIALS: Mapping[str, str] = {
    "codex": "auth.json",
    "codex-exec": "auth.json",
    "claude": ".credentials.json",
}
"""What the credential is called there."""


def config_plan(run: Run, state_dir: Path) -> dict[str, Any] | None:
    """What the stage is to prepare; None: the run has the configuration of the agents' user."""
    if not run.private_config:
        return None
    named = {name: text.replace(HERE, "{dir}") for name, text in run.env.items() if HERE in text}
    return {
        "dir": str(state_dir / "sessions" / str(run.conversation)),
        "env": {**HOMES.get(run.adapter, ANY), **named},
        "files": dict(run.config_files),
        "credential": _credential(run, state_dir),
    }


def _credential(run: Run, state_dir: Path) -> dict[str, Any] | None:
    if run.credential is None:
        return None
    return {
        "path": run.credential,
        "name": run.credential_name or CREDENTIALS.get(run.adapter) or PurePosixPath(run.credential).name,
        "locks": str(state_dir / "locks"),
        "hold": run.credential_lock,
        "wait": run.credential_wait.total_seconds(),
    }
