"""What every agent is started with: the words of its command, its environment. Pure; if it fails, one run fails."""

import json
from collections.abc import Mapping
from typing import Any

from leasehold.models import Run

CONTEXT_LIMIT = 64 << 10
"""Bytes of context that fit into one variable of the environment, with room to spare."""


def command(run: Run, workspace: str) -> tuple[str, ...]:
    """The agent's command with its placeholders filled."""
    words = {
        "{prompt}": run.prompt,
        "{workspace}": workspace,
        "{job_id}": str(run.job_id),
        "{run_id}": str(run.id),
        "{session}": run.session or "",
    }
    return tuple(_fill(word, words) for word in run.command)


def environment(run: Run) -> dict[str, str]:
    """What its row says, and who it is."""
    return {
        **run.env,
        "LEASEHOLD_JOB_ID": str(run.job_id),
        "LEASEHOLD_RUN_ID": str(run.id),
        "LEASEHOLD_ATTEMPT": str(run.attempt),
        "LEASEHOLD_TENANT": run.tenant,
        **_context(run.context),
        **({"LEASEHOLD_SESSION": run.session} if run.session else {}),
    }


def _context(context: Mapping[str, Any]) -> dict[str, str]:
    """What the job was woken with, if it fits."""
    text = json.dumps(context, ensure_ascii=False)
    return {"LEASEHOLD_CONTEXT": text} if context and len(text.encode()) <= CONTEXT_LIMIT else {}


def _fill(word: str, words: dict[str, str]) -> str:
    """Replace placeholders in one pass, so that a prompt that contains one is left as it is."""
    parts, rest = [], word
    while rest:
        at, name = min(((rest.find(n), n) for n in words if n in rest), default=(-1, ""))
        if at < 0:
            break
        parts += [rest[:at], words[name]]
        rest = rest[at + len(name) :]
    return "".join([*parts, rest])
