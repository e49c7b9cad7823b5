"""Two more languages the scripted model speaks: OpenAI's chat completions (OpenCode) and Gemini's. As in `dialects`."""

import json
from collections.abc import Iterator

from agents.dialects import Asked, Said, ident, pieces, texts
from agents.script import Call, is_script

CHAT_USAGE = {
    "prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 400}, "completion_tokens": 50,
    "completion_tokens_details": {"reasoning_tokens": 10}, "total_tokens": 1050,
}  # fmt: skip
GEMINI_USAGE = {
    "promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 50, "thoughtsTokenCount": 10,
    "totalTokenCount": 1060,
}  # fmt: skip


class Chat:
    """OpenAI's older one. Its stream ends with a word that is no object."""

    def asked(self, body: Said) -> Asked:
        prompt, results = "", 0
        for message in body.get("messages") or []:
            said = "\n".join(texts(message.get("content")))
            if message.get("role") == "user" and is_script(said):
                prompt, results = said, 0
            elif message.get("role") == "tool":
                results += 1
        return Asked(prompt, results, {tool["function"]["name"]: tool for tool in body.get("tools") or []})

    def error(self, status: int, kind: str, words: str) -> Said:
        return {"error": {"type": kind, "code": kind, "message": words, "param": None}}

    def call(self, body: Said, call: Call) -> Iterator[Said | str]:
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        delta = {"tool_calls": [{"index": 0, "id": ident("call"), "type": "function", "function": function}]}
        yield from self._around(body, [delta], "tool_calls")

    def words(self, body: Said, words: str) -> Iterator[Said | str]:
        yield from self._around(body, [{"content": piece} for piece in pieces(words)], "stop")

    def whole(self, events: list[Said | str]) -> Said:
        said = [event["choices"][0]["delta"] for event in events if isinstance(event, dict) and event["choices"]]
        calls = [call for delta in said for call in delta.get("tool_calls", ())]
        message = {"role": "assistant", "content": "".join(delta.get("content", "") for delta in said)}
        choice = {
            "index": 0,
            "message": {**message, **({"tool_calls": calls} if calls else {})},
            "finish_reason": "stop",
        }
        return {
            "id": ident("chat"),
            "object": "chat.completion",
            "created": 1,
            "choices": [choice],
            "usage": CHAT_USAGE,
        }

    def _around(self, body: Said, deltas: list[Said], why: str) -> Iterator[Said | str]:
        chunk = {"id": ident("chat"), "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        for delta in ({"role": "assistant", "content": ""}, *deltas):
            yield {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": why}]}
        yield {**chunk, "choices": [], "usage": CHAT_USAGE}
        yield "[DONE]"


class Gemini:
    """Google's."""

    def asked(self, body: Said) -> Asked:
        prompt, results = "", 0
        for content in body.get("contents") or []:
            parts = content.get("parts") or []
            results += sum("functionResponse" in part for part in parts)
            said = [text for text in texts(parts) if is_script(text)]
            if content.get("role", "user") == "user" and said:
                prompt, results = "\n".join(said), 0
        declared = [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations") or []]
        return Asked(prompt, results, {each["name"]: each for each in declared})

    def error(self, status: int, kind: str, words: str) -> Said:
        return {"error": {"code": status, "status": kind.upper(), "message": words}}

    def call(self, body: Said, call: Call) -> Iterator[Said | str]:
        yield self._piece({"functionCall": {"name": call.name, "args": call.arguments}}, "STOP")

    def words(self, body: Said, words: str) -> Iterator[Said | str]:
        if (body.get("generationConfig") or {}).get(
            "responseMimeType"
        ) == "application/json":  # which model, who is next
            words = json.dumps({"reasoning": "scripted", "model_choice": "flash", "next_speaker": "user"})
        said = pieces(words) or [""]
        for piece in said[:-1]:
            yield self._piece({"text": piece}, None)
        yield self._piece({"text": said[-1]}, "STOP")

    def whole(self, events: list[Said | str]) -> Said:
        said = [event["candidates"][0]["content"]["parts"][0] for event in events if isinstance(event, dict)]
        part = said[0] if "functionCall" in said[0] else {"text": "".join(each["text"] for each in said)}
        return self._piece(part, "STOP")

    def _piece(self, part: Said, why: str | None) -> Said:
        ended = {"finishReason": why} if why else {}
        candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, **ended}
        used = {"usageMetadata": GEMINI_USAGE} if why else {}
        return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": ident("resp"), **used}
