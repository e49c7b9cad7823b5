"""The two languages the scripted model speaks: OpenAI's Responses and Anthropic's Messages. Pure, but for the ids.

Each answers what it was asked (prompt, results since, tools) and says one answer as events of a stream.
Usage is always 1000 tokens in, 400 of them cached, and 50 out, for each answer.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from agents.script import Call, is_script

Said = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The last prompt, how many of its calls have a result by now, and the tools there are."""

    prompt: str
    results: int
    tools: dict[str, Any]


class Dialect(Protocol):
    """A provider's API, as far as the agents need it."""

    def asked(self, body: Said) -> Asked: ...
    def error(self, status: int, kind: str, words: str) -> Said: ...
    def call(self, body: Said, call: Call) -> Iterator[Any]: ...
    def words(self, body: Said, words: str) -> Iterator[Any]: ...
    def whole(self, events: list[Any]) -> Said: ...


def ident(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:16]}"


def pieces(words: str) -> list[str]:
    return re.findall(r"\S+\s*", words)


def texts(content: Any) -> list[str]:
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return [part["text"] for part in parts if isinstance(part.get("text"), str)]


class Responses:
    """OpenAI's."""

    def asked(self, body: Said) -> Asked:
        prompt, results = "", 0
        for item in body.get("input") or []:
            if item.get("role") == "user" and is_script("\n".join(texts(item.get("content")))):
                prompt, results = "\n".join(texts(item["content"])), 0
            elif str(item.get("type")).endswith("_call_output"):
                results += 1
        return Asked(prompt, results, {tool.get("name", tool["type"]): tool for tool in body.get("tools") or []})

    def error(self, status: int, kind: str, words: str) -> Said:
        return {"error": {"type": kind, "code": kind, "message": words, "param": None}}

    def call(self, body: Said, call: Call) -> Iterator[Said]:
        item = {
            "type": "function_call", "id": ident("fc"), "call_id": ident("call"), "name": call.name,
            "arguments": json.dumps(call.arguments), "status": "completed",
        }  # fmt: skip
        yield from self._around(body, item, {**item, "arguments": "", "status": "in_progress"}, [])

    def words(self, body: Said, words: str) -> Iterator[Said]:
        item: Said = {"type": "message", "id": ident("msg"), "role": "assistant", "status": "completed"}
        delta = {"type": "response.output_text.delta", "item_id": item["id"], "output_index": 0, "content_index": 0}
        whole = {**item, "content": [{"type": "output_text", "text": words, "annotations": []}]}
        deltas = [{**delta, "delta": piece} for piece in pieces(words)]
        yield from self._around(body, whole, {**item, "status": "in_progress", "content": []}, deltas)

    def whole(self, events: list[Said]) -> Said:
        whole: Said = events[-1]["response"]
        return whole

    def _around(self, body: Said, item: Said, begun: Said, deltas: list[Said]) -> Iterator[Said]:
        answer = {"id": ident("resp"), "object": "response", "model": body.get("model"), "status": "in_progress"}
        usage = {
            "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 10}, "total_tokens": 1050,
        }  # fmt: skip
        yield {"type": "response.created", "response": {**answer, "output": []}}
        yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
        yield from deltas
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        done = {**answer, "status": "completed", "output": [item], "usage": usage}
        yield {"type": "response.completed", "response": done}


class Messages:
    """Anthropic's."""

    def asked(self, body: Said) -> Asked:
        prompt, results = "", 0
        for message in body.get("messages") or []:
            if message.get("role") not in ("user", "system"):  # what somebody says during a turn is system's
                continue
            parts = message["content"] if isinstance(message["content"], list) else []
            results += sum(part.get("type") == "tool_result" for part in parts)
            said = [text for text in texts(message["content"]) if is_script(text)]
            if said:
                prompt, results = "\n".join(said), 0
        return Asked(prompt, results, {tool["name"]: tool for tool in body.get("tools") or []})

    def error(self, status: int, kind: str, words: str) -> Said:
        return {"type": "error", "error": {"type": kind, "message": words}}

    def call(self, body: Said, call: Call) -> Iterator[Said]:
        block = {"type": "tool_use", "id": ident("toolu"), "name": call.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}
        yield from self._around(body, block, [delta], "tool_use")

    def words(self, body: Said, words: str) -> Iterator[Said]:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(words)]
        yield from self._around(body, {"type": "text", "text": ""}, deltas, "end_turn")

    def whole(self, events: list[Said]) -> Said:
        block, deltas = events[1]["content_block"], [event["delta"] for event in events[2:-3]]
        said = "".join(delta.get("text", delta.get("partial_json")) for delta in deltas)
        content = {**block, "text": said} if block["type"] == "text" else {**block, "input": json.loads(said)}
        message, end = events[0]["message"], events[-2]
        usage = {**message["usage"], **end["usage"]}
        return {**message, "content": [content], "stop_reason": end["delta"]["stop_reason"], "usage": usage}

    def _around(self, body: Said, block: Said, deltas: list[Said], why: str) -> Iterator[Said]:
        message = {
            "id": ident("msg"), "type": "message", "role": "assistant", "model": body.get("model"), "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 600, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 400, "output_tokens": 1},
        }  # fmt: skip
        yield {"type": "message_start", "message": message}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        end = {"stop_reason": why, "stop_sequence": None}
        yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 50}}
        yield {"type": "message_stop"}
