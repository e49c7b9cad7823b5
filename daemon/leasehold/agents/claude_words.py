"""What the model behind Claude Code says and does, line by line: words, pieces of words, tools. Pure; if it fails, one run fails."""

from collections.abc import Iterator, Sequence
from typing import Any

from leasehold.agents.claude_asks import words_of
from leasehold.agents.claude_control import Talk
from leasehold.agents.conversation import Conversation, Said, unknown
from leasehold.agents.heads import plain
from leasehold.models import Event, Run


class Words(Conversation):
    """Of a message that comes in pieces the whole has the same id as they; its second text has one of its own."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.talk = Talk.of(run.id, run.prompt)

    def streamed(self, said: Said) -> Sequence[Event]:
        """A piece of what comes as a whole line soon."""
        event = said["event"]
        if said.get("parent_tool_use_id"):
            return ()
        if event["type"] == "message_start":
            self.talk.speaking = [event["message"]["id"], 0]
        if event["type"] != "content_block_delta" or event["delta"]["type"] != "text_delta":
            return ()
        ident = self._message(said.get("api_message_id") or self.talk.speaking[0])
        return (Event("delta", event["delta"]["text"], {"id": ident, "role": "agent"}),)

    def assistant(self, said: Said) -> Sequence[Event]:
        """One part of its message, or what the program says in its place."""
        message = said["message"]
        if message.get("model") == "<synthetic>" or said.get("is_api_error_message"):  # not the model's words
            words = " ".join(part["text"] for part in message["content"] if part.get("type") == "text")
            if not said.get("is_api_error_message"):
                return (Event("progress", words, {}, phase="program"),)
            return (Event("error", words, {"fatal": False}, "warning"),)
        self.known.refused = 0
        helper = said.get("parent_tool_use_id")
        return tuple(self._block(block, message.get("id"), helper) for block in message["content"])

    def _block(self, block: dict[str, Any], message: Any, helper: str | None) -> Event:
        match block["type"]:
            case "text" if helper:  # of an agent that it has set to work: not for whoever asked
                return Event("progress", block["text"], {"id": helper}, phase="helper")
            case "text":
                event = self.speak(block["text"], id=self._message(message), status="completed")
                self.talk.speaking[1] += 1
                return event
            case "thinking":
                return Event("progress", block.get("thinking"), {}, phase="thinking")
            case "tool_use":
                given = block.get("input") or {}
                if block["name"] == "TodoWrite":
                    return Event("plan", None, {"items": given.get("todos", [])})
                return self.start_tool(block["id"], block["name"], words_of(given))
        return unknown(block)

    def _message(self, ident: Any) -> str:
        if self.talk.speaking[0] != ident:
            self.talk.speaking = [ident, 0]
        name, before = self.talk.speaking
        return f"{name}/{before}" if before else str(name)

    def user(self, said: Said) -> Iterator[Event]:
        """What tools gave back, and what the program itself tells the model. Somebody's own words come back as they were sent."""
        if said.get("isReplay"):
            if self.talk.heard(said.get("uuid")):
                self.known.ended = None
            return
        content = said["message"]["content"]
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if block["type"] == "tool_result":
                yield self._tool_result(block)
            elif block["type"] == "text":
                yield Event("progress", block["text"], {}, phase="program")
            else:
                yield unknown(block)

    def blocks(self, who: str, content: Sequence[dict[str, Any]]) -> Iterator[Event]:
        """Of a message that is too long: the tools that it begins or ends."""
        for block in map(plain, content):
            if who == "assistant" and block.get("type") == "tool_use":
                yield self.start_tool(block["id"], block["name"], None)
            elif block.get("type") == "tool_result" and block.get("tool_use_id") in self.known.open:
                list(self.talk.withdrawn(call=block["tool_use_id"]))  # it was answered
                ok = not block["is_error"] if "is_error" in block else None
                yield self.finish_tool(block["tool_use_id"], None, ok=ok, cut=True)

    def _tool_result(self, block: dict[str, Any]) -> Event:
        ident = block["tool_use_id"]
        list(self.talk.withdrawn(call=ident))  # it was answered
        return self.finish_tool(ident, None, ok=not block.get("is_error"))
