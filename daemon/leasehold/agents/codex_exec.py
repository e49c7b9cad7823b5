"""Codex, one prompt at a time: `codex exec --json`. If it fails, one run fails.

Its failures are prose, so a reason is read from words; what matches none is `agent_error`. Its token counts are those of the
whole thread, so they are reported as a counter of the session.
"""

import re
from collections.abc import Sequence
from typing import Any

from leasehold.agents.conversation import Conversation, Said, unknown
from leasehold.agents.heads import plain
from leasehold.agents.start import command, environment
from leasehold.models import Command, Event, Run

REASONS = (
    ("quota", re.compile(r"quota exceeded|usage limit|insufficient_quota", re.IGNORECASE)),
    ("rate_limit", re.compile(r"\b429\b|rate limit", re.IGNORECASE)),
    ("auth", re.compile(r"status:? 40[13]\b", re.IGNORECASE)),
    ("context_overflow", re.compile(r"context window|context_length_exceeded", re.IGNORECASE)),
)
"""The first that its last words match."""
RETRYING = re.compile(r"Reconnecting\D*(\d+)/(\d+)\s*(?:\((.*)\))?", re.DOTALL)
TOOLS = ("command_execution", "mcp_tool_call", "file_change", "web_search", "collab_tool_call")
WELL = (None, "completed")
SILENT = ("agent_message", "reasoning", "error")  # items that are of interest when they are whole


class CodexExec(Conversation):
    """The dialect of `codex exec --json`."""

    def launch(self, run: Run, workspace: str) -> Command:
        """command[1] is the program, what follows are its options; the prompt goes to stdin."""
        program, *options = command(run, workspace)
        resume = ("resume", run.session) if run.session else ()
        argv = (*run.launcher, program, "exec", "--json", "--skip-git-repo-check", *options, *resume, "-")
        return Command(argv=argv, stdin=run.prompt.encode(), env=environment(run))

    def translate(self, said: Said) -> Sequence[Event]:
        """One line."""
        match said["type"]:
            case "thread.started":
                return (self.begin(said["thread_id"]),)
            case "turn.started":
                return (Event("progress", None, {}, phase="turn"),)
            case "item.started" | "item.updated" | "item.completed" as stage:
                return self._item(said["item"], stage.removeprefix("item."))
            case "turn.completed":
                return (self._used(said["usage"]), self.end(ok=True, message=self.known.words))
            case "turn.failed":
                return (self._failed_turn(str(said["error"]["message"])),)
            case "error":
                return (trouble(str(said["message"])),)
        return (unknown(said),)

    def guess(self, said: Said) -> Sequence[Event]:
        """A tool that is at work has ended, well or not."""
        item = plain(said["item"])
        if said["type"] != "item.completed" or item["type"] not in TOOLS or item["id"] not in self.known.open:
            return ()
        return (self.finish_tool(item["id"], str(item.get("tool") or item["type"]), ok=None, cut=True),)

    def _item(self, item: dict[str, Any], stage: str) -> Sequence[Event]:
        kind = item["type"]
        if kind in TOOLS:
            return (self._tool(kind, item, stage),)
        if kind == "todo_list":
            return (Event("plan", None, {"items": item["items"]}),)
        if kind in SILENT and stage != "completed":
            return ()
        match kind:
            case "agent_message":
                return (self.speak(item["text"]),)
            case "reasoning":
                return (Event("progress", str(item["text"]), {}, phase="thinking"),)
            case "error":  # a run may well succeed after one
                return (Event("error", str(item["message"]), {"fatal": False}, "warning"),)
        return (unknown(item),)

    def _tool(self, kind: str, item: dict[str, Any], stage: str) -> Event:
        ident, name = str(item["id"]), str(item.get("tool") or kind)
        if stage != "completed":
            return self.start_tool(ident, name, item.get("command") or item.get("query"))
        status, code = item.get("status"), item.get("exit_code")
        if status == "declined":
            self.known.denied.append(name)
        more = {} if code is None else {"exit_code": code}
        return self.finish_tool(ident, name, ok=status in WELL and not code, **more)

    def _used(self, usage: dict[str, Any]) -> Event:
        tokens = {
            "input_tokens": usage.get("input_tokens", 0),
            "output_tokens": usage.get("output_tokens", 0),
            "cached_tokens": usage.get("cached_input_tokens", 0),
        }
        return Event("usage", None, {**tokens, "counter": "session", "session": self.known.session})

    def _failed_turn(self, words: str) -> Event:
        return self.end(ok=False, reason=reason_of(words), message=words)


def reason_of(words: str) -> str | None:
    """What its prose means; None: nothing that has a name."""
    return next((reason for reason, pattern in REASONS if pattern.search(words)), None)


def trouble(words: str) -> Event:
    """An `error` line: only `turn.failed` ends a turn, so this is a retry, or announces that end."""
    found = RETRYING.search(words)
    if found is None:
        return Event("error", words, {"fatal": False}, "warning")
    why = found[3] or words
    kind = "rate_limited" if reason_of(why) == "rate_limit" else "retrying"
    return Event(kind, why, {"attempt": int(found[1]), "of": int(found[2])}, "warning")
