"""Any program: prompt on stdin or in argv, plain text or JSON lines out. If it fails, one run fails.

A line of stdout that is a JSON object whose `type` is in VOCABULARY is an event; every other byte is output.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.agents.start import command, environment
from leasehold.models import Command, Event, Outcome, Run, Verdict

VOCABULARY = ("message", "delta", "progress", "tool_call", "artifact", "usage", "session", "result", "error")
"""The `type` values that become events. `sql/README.md` says what each may carry."""
REASONS: dict[str, Outcome] = {
    "quota": "interrupted", "rate_limit": "interrupted", "auth": "failed", "context_overflow": "failed",
    "session_rejected": "failed", "max_turns": "failed", "refusal": "failed", "budget": "blocked", "question": "blocked",
}  # fmt: skip
"""What an agent may name as the reason of its own end, and the outcome that goes with it: `reasons.agent_may_say`."""
OPEN_LIMIT = 1000
"""Tools at work at once that are told apart."""


class CommandAdapter:
    """The dialect of plain programs."""

    def __init__(self) -> None:
        self._result: dict[str, Any] | None = None
        self._open: set[str] = set()

    @property
    def done(self) -> bool:
        """A `result` line was received."""
        return self._result is not None

    @property
    def in_tool(self) -> bool:
        """A `tool_call` line with status `started` was received, and none that ends it."""
        return bool(self._open)

    def launch(self, run: Run, workspace: str) -> Command:
        """Fill the placeholders of the agent's command; the prompt goes to stdin as well."""
        argv = (*run.launcher, *command(run, workspace))
        return Command(argv=argv, stdin=run.prompt.encode(), env=environment(run))

    def receive(self, line: bytes) -> Sequence[Event] | None:
        """One event, or None: plain output."""
        said = _object(line)
        if said is None or said.get("type") not in VOCABULARY:
            return None
        kind = str(said.pop("type"))
        event = _event(kind, said)
        if kind == "delta" and not (event.message and _text(said.get("id"))):  # of no message that could grow
            return None
        if kind == "result":
            self._result = said
        if kind == "tool_call":
            self._tool(str(said.get("id", said.get("name"))), said.get("status"))
        return (event,)

    def _tool(self, name: str, status: object) -> None:
        if status == "started" and len(self._open) < OPEN_LIMIT:
            self._open.add(name)
        elif isinstance(status, str):
            self._open.discard(name)

    def freeze(self) -> Mapping[str, Any] | None:
        """The last result, and the tools at work."""
        return {"result": self._result, "open": sorted(self._open)}

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._result = state["result"]
        self._open = set(state["open"])

    def verdict(self, exit_code: int) -> Verdict:
        """A reason that it may name itself, then the exit code, then what else its last `result` line says."""
        said = self._result or {}
        rest = {key: item for key, item in said.items() if key not in ("ok", "message")}
        value = rest if "resets_at" in said else said.get("value", rest or None)  # SQL parks the account by it
        reason = _text(said.get("reason"))
        if said.get("ok") is False and reason in REASONS:
            message = _text(said.get("message")) or f"the agent named the reason: {reason}"
            return Verdict(REASONS[reason], reason, message, value)
        if exit_code != 0:
            return Verdict("failed", "exit_code", f"exited with code {exit_code}", value)
        if said.get("ok") is False:
            message = _text(said.get("message")) or "the agent said that it failed"
            return Verdict("failed", "agent_error", message, value)
        return Verdict("succeeded", result=value)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _event(kind: str, said: dict[str, Any]) -> Event:
    message = next((text for key in ("message", "text", "name") if (text := _text(said.get(key)))), None)
    phase = _text(said.get("phase")) if kind == "progress" else None
    return Event(kind, message, said, "error" if kind == "error" else "info", phase)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
