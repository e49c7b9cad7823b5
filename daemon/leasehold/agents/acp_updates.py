"""`session/update` of ACP as events of the one vocabulary: words, thoughts, tools, plans, costs. Pure; if it fails, one run fails."""

from collections.abc import Sequence
from typing import Any

from leasehold.agents.acp_asks import abridged, tool_name
from leasehold.agents.acp_errors import reason_of_words, status_of
from leasehold.agents.acp_state import AcpKnown
from leasehold.agents.conversation import OPEN_LIMIT, Conversation, Said, unknown
from leasehold.agents.quirks import Quirks, quirks_of
from leasehold.models import Event

NOTHING_NEW = ("available_commands_update", "current_mode_update", "config_option_update", "user_message_chunk")
"""What it can do, how it is set, and what it was told: nobody has to read that again."""
ENDED = {"completed": True, "failed": False}


class Updates(Conversation):
    """The half of the dialect that only listens."""

    known: AcpKnown

    @property
    def quirks(self) -> Quirks:
        """Of this agent, once it has said its name."""
        return quirks_of(self.known.agent)

    def updated(self, update: Said) -> Sequence[Event]:
        """One update of the session."""
        kind = str(update["sessionUpdate"])
        if not self.known.ready or self.known.past:
            return self._before(kind, update)
        match kind:
            case "agent_message_chunk" | "agent_thought_chunk":
                return self._words("message" if kind == "agent_message_chunk" else "thought", update)
            case "tool_call":
                return [*self.known.close(), *self._tool(update)]
            case "tool_call_update":
                return self._tool(update)
            case "plan":
                return [*self.known.close(), Event("plan", None, {"items": update["entries"]})]
            case "plan_update":
                return [*self.known.close(), Event("plan", None, {"items": update["plan"]["entries"]})]
            case "usage_update":
                return self._usage(update)
            case "session_info_update":
                return self._info(update)
        return () if kind in NOTHING_NEW else (unknown(update, kind),)

    def _before(self, kind: str, update: Said) -> Sequence[Event]:
        """Before its session is open: the past of a loaded one, told again; of a new one, warnings as if they were its words."""
        if self.known.ready:
            self.known.past = kind != "available_commands_update"
            return ()
        if kind != "agent_message_chunk" or self.known.opening != "session/new":
            return ()
        return (Event("progress", str(update["content"]["text"]), {}, phase="notice"),)

    def _words(self, kind: str, update: Said) -> Sequence[Event]:
        content = update["content"]
        if content["type"] != "text":
            return (unknown(update, f"{kind} of type {content['type']}"),)
        if not content["text"]:
            return ()
        whole, ident = self.known.add(kind, update.get("messageId"), str(content["text"]))
        delta = [Event("delta", str(content["text"]), {"id": ident, "role": "agent"})] if kind == "message" else []
        return [*whole, *delta]

    def _tool(self, update: Said) -> Sequence[Event]:
        """A tool is told when it is known what it does: many begin with an empty call, and fill it in."""
        ident, status = str(update["toolCallId"]), update.get("status")
        tool = self._known_tool(ident, update)
        if tool["over"]:  # an afterthought
            return ()
        events = []
        if not tool["told"] and (update["sessionUpdate"] != "tool_call" or status != "pending"):
            events.append(self.tell_tool(ident))
        if status in ENDED:
            events.append(self._finished(ident, tool, update, ok=ENDED[status]))
        elif isinstance(
            code := _exit_code(update), int
        ):  # of an agent that says it before the status, or instead of it
            tool["exit_code"] = code
        return events

    def _known_tool(self, ident: str, update: Said) -> Said:
        known = self.known
        if ident not in known.tools:
            if len(known.tools) >= OPEN_LIMIT:
                known.tools.pop(next(iter(known.tools)))
            known.tools[ident] = {"name": tool_name(update), "what": None, "told": False, "over": False}
            if ident not in known.open and len(known.open) < OPEN_LIMIT:
                known.open.append(ident)
        tool = known.tools[ident]
        given = update.get("rawInput")
        command = given.get("command") if isinstance(given, dict) else None
        what = command if isinstance(command, str) else update.get("title")
        tool["what"] = what[:2000] if isinstance(what, str) and what else tool["what"]
        return tool

    def tell_tool(self, ident: str) -> Event:
        """It is at work."""
        tool = self.known.tools[ident]
        tool["told"] = True
        return self.start_tool(ident, tool["name"], tool["what"])

    def _finished(self, ident: str, tool: Said, update: Said, *, ok: bool) -> Event:
        tool["over"] = True
        code = _exit_code(update)
        code = tool.get("exit_code") if code is None else code
        more: Said = {} if code is None else {"exit_code": code}
        text, diffs = _content(update)
        more |= {"text": text} if text else {}
        more |= {"diff": diffs} if diffs else {}
        return self.finish_tool(ident, tool["name"], ok=ok and not code, **more)

    def _usage(self, update: Said) -> Sequence[Event]:
        """How full its context is nobody has asked; what it costs is reported when the turn is over."""
        cost = update.get("cost")
        if (
            isinstance(cost, dict)
            and isinstance(cost.get("amount"), int | float)
            and cost.get("currency", "USD") == "USD"
        ):
            self.known.cost = float(cost["amount"])
        return ()

    def _info(self, update: Said) -> Sequence[Event]:
        """A title, of which nobody has asked; of Codex also how its thread is, and each error that it tries again after."""
        codex = (update.get("_meta") or {}).get("codex") or {}
        if (codex.get("threadStatus") or {}).get("type") == "systemError":
            self.known.trouble = self.known.trouble or {}
        error = codex.get("error")
        if not error:
            return ()
        words = ": ".join(str(part) for part in (error.get("message"), error.get("additionalDetails")) if part)
        status = status_of(error)
        self.known.trouble = {"status": status, "words": words}
        if not error.get("willRetry"):
            return (Event("error", words, {"fatal": False}, "warning"),)
        limited = status == 429 or reason_of_words(words) == "rate_limit"
        return (Event("rate_limited" if limited else "retrying", words, {"status": status}, "warning"),)

    def used(self, answer: Said) -> Sequence[Event]:
        """What the turn has used, by the answer that ends it."""
        known, quirks = self.known, self.quirks
        counts = _tokens(answer, quirks)
        data: Said = {**counts, **({"of": "last_step"} if counts and quirks.tokens == "last_step" else {})}
        if known.cost is None:
            return (Event("usage", None, data),) if counts else ()
        cost, known.counted = known.cost - known.counted, known.cost
        if quirks.cost == "session":
            total = {"cost_usd": known.cost, "counter": "session", "session": known.session}
            told = [Event("usage", None, {**data, "cost_usd": 0})] if counts else []
            return [*told, *([Event("usage", None, total)] if cost else [])]
        return (Event("usage", None, {**data, "cost_usd": max(0.0, cost)}),) if counts or cost else ()

    def abandoned(self) -> Sequence[Event]:
        """The turn is over: whatever tool it had at work counts as ended, and what is said of it later as an afterthought."""
        left = [ident for ident in self.known.open if ident in self.known.tools]
        events = []
        for ident in left:
            tool = self.known.tools[ident]
            tool["over"] = True
            events += [] if tool["told"] else [self.tell_tool(ident)]
            events.append(self.finish_tool(ident, tool["name"], ok=False, why="the turn was over"))
        return events


def _tokens(answer: Said, quirks: Quirks) -> dict[str, int]:
    used = answer.get("usage")
    if isinstance(used, dict):
        names = {"input_tokens": "inputTokens", "output_tokens": "outputTokens", "cached_tokens": "cachedReadTokens"}
    elif quirks.quota_meta:
        used = ((answer.get("_meta") or {}).get("quota") or {}).get("token_count") or {}
        names = {"input_tokens": "input_tokens", "output_tokens": "output_tokens"}
    else:
        return {}
    counts = {ours: used[theirs] for ours, theirs in names.items() if isinstance(used.get(theirs), int)}
    return counts if any(counts.values()) else {}


def _exit_code(update: Said) -> int | None:
    meta, output = update.get("_meta"), update.get("rawOutput")
    codes: list[Any] = []
    if isinstance(meta, dict) and isinstance(meta.get("terminal_exit"), dict):
        codes.append(meta["terminal_exit"].get("exit_code"))
    if isinstance(output, dict):
        inner = output.get("metadata")
        codes += [
            output.get("exit_code"),
            output.get("exitCode"),
            inner.get("exit") if isinstance(inner, dict) else None,
        ]
    return next((code for code in codes if isinstance(code, int) and not isinstance(code, bool)), None)


def _content(update: Said) -> tuple[str, list[Said]]:
    """What a tool has to show, abridged: its words, its changes of files."""
    words, diffs = [], []
    for each in update.get("content") or ():
        if each.get("type") == "content" and each["content"].get("type") == "text":
            words.append(str(each["content"]["text"]))
        elif each.get("type") == "diff":
            diffs.append(abridged({"path": each["path"], "old": each.get("oldText"), "new": each["newText"]}))
    return str(abridged("\n".join(words))), diffs[:20]
