"""What Codex's app server tells unasked, as events of the one vocabulary. If it fails, one run fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.agents import codex_errors, jsonrpc
from leasehold.agents.codex_items import Items, paths_of
from leasehold.agents.codex_talk import Talk
from leasehold.agents.conversation import Said
from leasehold.models import Event, Run

IN_VAIN = 3
"""Answers in a row that the key is refused, after which nothing else is expected."""
UNWANTED = (
    "thread/started", "thread/status/changed", "thread/readState/changed", "thread/name/updated", "thread/goal/cleared",
    "thread/goal/updated", "thread/settings/updated", "turn/diff/updated", "remoteControl/status/changed", "deprecationNotice",
    "skills/changed", "app/list/updated", "item/plan/delta", "item/reasoning/summaryTextDelta",
    "item/reasoning/summaryPartAdded", "item/reasoning/textDelta", "item/fileChange/patchUpdated",
    "item/fileChange/outputDelta", "rawResponseItem/completed", "rawResponse/completed", "thread/compacted", "fs/changed", "thread/queue/changed",
    "thread/environment/connected", "thread/environment/disconnected", "thread/prediction/updated", "thread/project/updated",
    "project/changed", "thread/section/changed", "thread/attachment/updated", "turn/moderationMetadata", "model/verification",
    "model/safetyBuffering/updated",
)  # fmt: skip
"""It is asked not to say these."""
SILENT = (
    *UNWANTED, "item/commandExecution/outputDelta", "item/commandExecution/terminalInteraction", "item/mcpToolCall/progress",
    "mcpServer/startupStatus/updated", "account/updated", "hook/started", "hook/completed", "thread/closed",
)  # fmt: skip
"""Mean nothing to anybody here, or show only that it lives."""


class Told(Items):
    """A conversation in turns, as it is told."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.talk = Talk()

    def told(self, method: str, params: Mapping[str, Any]) -> Sequence[Event]:
        """One notification."""
        if method == "thread/tokenUsage/updated":
            return self._used(params)
        if method in SILENT or params.get("threadId") not in {None, self.talk.thread}:
            return ()  # agents of its own have threads of their own
        if method.startswith("item/"):
            return self._in_item(method, params)
        match method:
            case "turn/started":
                self.talk.turn = str(params["turn"]["id"])
                return (Event("progress", None, {}, phase="turn"),)
            case "turn/completed":
                return self._completed(params["turn"])
            case "turn/plan/updated":
                return (self.plan(params),)
            case "error":
                return self._trouble(params)
            case "account/rateLimits/updated":
                return self._limits(params["rateLimits"])
            case "serverRequest/resolved":
                return self.talk.forget(params["requestId"])
        return (new(method, params),)

    def _in_item(self, method: str, params: Mapping[str, Any]) -> Sequence[Event]:
        match method:
            case "item/started" | "item/completed":
                return self._item(params["item"], begins=method == "item/started")
            case "item/agentMessage/delta":
                self.known.refused = 0
                return (self.delta(params),)
        return (new(method, params),)

    def _item(self, item: Said, *, begins: bool) -> Sequence[Event]:
        self.known.refused = 0
        if item["type"] == "fileChange" and begins:
            self.talk.files[str(item["id"])] = paths_of(item.get("changes")) or ""
        return self.item(item, begins=begins)

    def _used(self, params: Mapping[str, Any]) -> Sequence[Event]:
        total = params["tokenUsage"]["total"]
        tokens = {
            "input_tokens": total.get("inputTokens", 0),
            "output_tokens": total.get("outputTokens", 0),
            "cached_tokens": total.get("cachedInputTokens", 0),
        }
        if not any(tokens.values()):  # of a conversation that is too long it says nothing but that
            return ()
        return (Event("usage", None, {**tokens, "counter": "session", "session": params["threadId"]}),)

    def _trouble(self, params: Mapping[str, Any]) -> Sequence[Event]:
        error = params["error"]
        if not params.get("willRetry"):  # the turn's own end says it again
            return (Event("error", codex_errors.words_of(error), {"fatal": False}, "warning"),)
        self.known.refused = self.known.refused + 1 if codex_errors.reason_of(error) == "auth" else 0
        again = codex_errors.retry(error)
        if self.known.refused < IN_VAIN or self.talk.closed:
            return (again,)
        self.talk.close()
        words = f"its login or key was refused {self.known.refused} times in a row"
        return (again, self.end(ok=False, reason="auth", message=words))

    def _limits(self, snapshot: Mapping[str, Any]) -> Sequence[Event]:
        stands = codex_errors.limits(snapshot)
        if stands is None:
            return ()
        status, resets_at = stands
        changed = (status == "reached") != (self.known.resets_at is not None)
        self.known.resets_at = resets_at
        data = {"status": status, "resets_at": resets_at}
        return (Event("rate_limited", status, data, "warning" if status == "reached" else "info"),) if changed else ()

    def _completed(self, turn: Said) -> Sequence[Event]:
        status, error = turn["status"], turn.get("error") or {}
        words = codex_errors.words_of(error)
        told = self.talk.ended(str(status), failed=status not in {"completed", "interrupted"})
        if self.talk.closed:  # its end is known
            return told
        if status == "completed":
            result = self.end(ok=True, message=self.known.words)
        elif status == "interrupted":
            self._clean(str(turn["id"]))
            words = "its turn was interrupted, as somebody had asked"
            result = self.end(ok=False, reason="turn_interrupted", message=words)
        else:
            result = self.end(ok=False, reason=codex_errors.reason_of(error), message=words)
            self.talk.close()  # what was to come after it comes after the next attempt
            return (*told, result)
        self.talk.go_on()
        return (*told, result)

    def _clean(self, turn: str) -> None:
        """What its tools have begun is still at work."""
        self.talk.cleaning = turn
        key, of = f"{turn}/clean", {"threadId": self.talk.thread}
        self.talk.owe(key, jsonrpc.request(key, "thread/backgroundTerminals/clean", of))


def new(method: str, params: Mapping[str, Any]) -> Event:
    """Kept as it is."""
    words = next((params[name] for name in ("message", "summary") if isinstance(params.get(name), str)), None)
    return Event("unknown", f"{method}: {words}" if words else method, {}, "debug")
