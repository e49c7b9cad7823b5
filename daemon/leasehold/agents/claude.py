"""Claude Code, one prompt at a time: `claude -p --output-format stream-json`. If it fails, one run fails.

`is_error` and `terminal_reason` of its result say how it ended, `subtype` does not. Its cost counts over all runs of a session,
so what is reported is the part since the last result.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from leasehold.agents.conversation import Conversation, Said, unknown
from leasehold.agents.start import command, environment
from leasehold.models import Command, Event, Run

IN_VAIN = 3
"""Answers in a row that the key is refused, after which nothing else is expected; it would go on for minutes."""
SUBTYPES = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}
TERMINAL = {"prompt_too_long": "context_overflow", "max_turns": "max_turns", "refusal": "refusal"}
STATUS = {401: "auth", 403: "auth", 429: "rate_limit"}
QUOTA = re.compile(r"insufficient_quota|usage limit|quota|limit reached|credit balance", re.IGNORECASE)
NO_SESSION = re.compile(r"no conversation found", re.IGNORECASE)
USAGE = {"inputTokens": "input_tokens", "outputTokens": "output_tokens", "cacheReadInputTokens": "cached_tokens"}


class Claude(Conversation):
    """The dialect of stream-json."""

    def launch(self, run: Run, workspace: str) -> Command:
        """command[1] is the program, what follows are its options; the prompt goes to stdin."""
        program, *options = command(run, workspace)
        resume = ("--resume", run.session) if run.session else ()
        protocol = ("-p", "--output-format", "stream-json", "--verbose")
        env = {"DISABLE_AUTOUPDATER": "1", **environment(run)}
        return Command(argv=(*run.launcher, program, *protocol, *resume, *options), stdin=run.prompt.encode(), env=env)

    def translate(self, said: Said) -> Sequence[Event]:
        """One line."""
        match said["type"]:
            case "system":
                return self._system(said)
            case "assistant":
                return self._assistant(said)
            case "user":
                return tuple(self._user(said))
            case "stream_event":  # a part of what comes as a whole line soon
                return ()
            case "rate_limit_event":
                return (self._limit(said["rate_limit_info"]),)
            case "result":
                return (*self._used(said), self._result(said))
        return (unknown(said),)

    def _system(self, said: Said) -> Sequence[Event]:
        match said.get("subtype"):
            case "init":
                return (self.begin(said["session_id"]),)
            case "api_retry":
                return (self._retry(said),)
            case "permission_denied":
                name = str(said["tool_name"])
                self.known.denied.append(name)
                data = {"id": said.get("tool_use_id"), "name": name, "decision": "denied"}
                return (Event("permission", said.get("message"), data, "warning"),)
        return (unknown(said, f"system {said.get('subtype')}"),)

    def _retry(self, said: Said) -> Event:
        why = str(said["error"])
        self.known.refused = self.known.refused + 1 if why == "authentication_failed" else 0
        data = {"attempt": said.get("attempt"), "of": said.get("max_retries"), "delay_ms": said.get("retry_delay_ms")}
        if self.known.refused >= IN_VAIN and self.known.ended is None:
            self.end(
                ok=False, reason="auth", message=f"its login or key was refused {self.known.refused} times in a row"
            )
        return Event("rate_limited" if why == "rate_limit" else "retrying", why, data, "warning")

    def _limit(self, info: dict[str, Any]) -> Event:
        status = str(info["status"])
        if status == "rejected":
            self.known.resets_at = info.get("resetsAt")
        data = {"status": status, "resets_at": info.get("resetsAt")}
        return Event("rate_limited", status, data, "info" if status == "allowed" else "warning")

    def _assistant(self, said: Said) -> Sequence[Event]:
        message = said["message"]
        if message.get("model") == "<synthetic>" or said.get("is_api_error_message"):  # not the model's words
            words = " ".join(part["text"] for part in message["content"] if part.get("type") == "text")
            return (Event("error", words, {"fatal": False}, "warning"),)
        self.known.refused = 0
        return tuple(self._block(block) for block in message["content"])

    def _block(self, block: dict[str, Any]) -> Event:
        match block["type"]:
            case "text":
                return self.speak(block["text"])
            case "thinking":
                return Event("progress", block.get("thinking"), {}, phase="thinking")
            case "tool_use":
                given = block.get("input") or {}
                if block["name"] == "TodoWrite":
                    return Event("plan", None, {"items": given.get("todos", [])})
                what = given.get("command") or given.get("file_path") or given.get("description")
                return self.start_tool(block["id"], block["name"], what)
        return unknown(block)

    def _user(self, said: Said) -> Iterator[Event]:
        content = said["message"]["content"]
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if block["type"] == "tool_result":
                yield self.finish_tool(block["tool_use_id"], None, ok=not block.get("is_error"))
            elif block["type"] == "text":
                yield Event("message", block["text"], {"role": "user"})
            else:
                yield unknown(block)

    def _used(self, said: Said) -> Iterator[Event]:
        for model, used in (said.get("model_usage_since_last_result") or {}).items():
            tokens = {ours: used.get(theirs, 0) for theirs, ours in USAGE.items()}
            yield Event("usage", None, {**tokens, "model": model, "cost_usd": used.get("costUSD")})

    def _result(self, said: Said) -> Event:
        words = str(said.get("result") or "; ".join(map(str, said.get("errors") or [])))
        if said.get("is_error") or said.get("terminal_reason") not in {None, "completed"}:
            return self.end(ok=False, reason=reason_of(said, words), message=words or said.get("terminal_reason"))
        self.known.words = words or self.known.words
        return self.end(ok=True, message=self.known.words)


def reason_of(said: Said, words: str) -> str | None:
    """What its result means; None: nothing that has a name."""
    if said.get("subtype") in SUBTYPES:
        return SUBTYPES[said["subtype"]]
    if said.get("terminal_reason") in TERMINAL:
        return TERMINAL[said["terminal_reason"]]
    if said.get("stop_reason") == "refusal":
        return "refusal"
    if NO_SESSION.search(words):
        return "session_rejected"
    if QUOTA.search(f"{said.get('api_error_type')} {words}"):
        return "quota"
    return STATUS.get(said.get("api_error_status") or 0)
