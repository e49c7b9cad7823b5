"""Codex's items (what it says, thinks, plans and does) as events of the one vocabulary. If it fails, one run fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.agents.conversation import Conversation, Said
from leasehold.models import Event

TOOLS = {
    "commandExecution": "command_execution", "fileChange": "file_change", "mcpToolCall": "mcp_tool_call",
    "dynamicToolCall": "dynamic_tool_call", "collabAgentToolCall": "collab_tool_call", "webSearch": "web_search",
    "imageView": "image_view", "imageGeneration": "image_generation",
}  # fmt: skip
"""What it does, by the names that `codex exec` has for the same."""
WELL = (None, "completed")
SILENT = ("userMessage", "agentMessage", "reasoning", "plan", "contextCompaction")
"""Of interest when they are whole; the user's words never, whoever said them knows them."""


class Items(Conversation):
    """A conversation that is told in items."""

    def item(self, item: Said, *, begins: bool) -> Sequence[Event]:
        """One that begins or is whole."""
        kind = item["type"]
        if kind in TOOLS:
            return (self._tool(TOOLS[kind], item, begins=begins),)
        if kind in SILENT:
            return () if begins else self._whole(kind, item)
        return (Event("unknown", f"item {kind}", {}, "debug"),)

    def _tool(self, kind: str, item: Said, *, begins: bool) -> Event:
        ident, name = str(item["id"]), str(item.get("tool") or kind)
        if begins:
            return self.start_tool(ident, name, what_of(item))
        status, code = item.get("status"), item.get("exitCode")
        more: Said = {} if code is None else {"exit_code": code}
        if status == "declined":  # somebody was asked and said no: that is no contradiction to a good end
            more["declined"] = True
        return self.finish_tool(ident, name, ok=status in WELL and not code, **more)

    def _whole(self, kind: str, item: Said) -> Sequence[Event]:
        match kind:
            case "agentMessage":
                return (self.speak(item["text"], id=item["id"], status="completed"),)
            case "reasoning":
                thoughts = "\n".join(str(part) for part in item.get("summary") or item.get("content") or ())
                return (Event("progress", thoughts, {}, phase="thinking"),) if thoughts else ()
            case "plan":
                return (self._proposal(item),)
            case "contextCompaction":
                return (Event("progress", "the conversation was made shorter", {}, phase="compaction"),)
        return ()

    def _proposal(self, item: Said) -> Event:
        """What it would do, asked in plan mode."""
        text = item["text"]
        if not isinstance(text, str):
            raise TypeError("its plan is no text")
        self.known.words = text
        data = {"kind": "plan", "title": "Plan", "content": text, "content_type": "text/markdown"}
        return Event("artifact", "Plan", data)

    def delta(self, params: Mapping[str, Any]) -> Event:
        """A piece of what it is saying."""
        if not isinstance(params["delta"], str):
            raise TypeError("its words are no text")
        return Event("delta", params["delta"], {"id": params["itemId"], "role": "agent"})

    def plan(self, params: Mapping[str, Any]) -> Event:
        """Its steps."""
        steps = [{"text": step["step"], "status": step["status"]} for step in params["plan"]]
        return Event("plan", params.get("explanation"), {"items": steps})


def what_of(item: Mapping[str, Any]) -> str | None:
    """What a tool is used for, in words."""
    for name in ("command", "query", "path", "prompt"):
        if isinstance(item.get(name), str):
            return str(item[name])
    return paths_of(item.get("changes"))


def paths_of(changes: object) -> str | None:
    """The files that are to be changed."""
    if not isinstance(changes, list):
        return None
    return ", ".join(str(change.get("path")) for change in changes if isinstance(change, dict)) or None
