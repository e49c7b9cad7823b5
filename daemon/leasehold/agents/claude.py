"""Claude Code: `claude -p` with stream-json both ways and its control protocol. If it fails, one run fails.

`is_error` and `terminal_reason` of its result say how it ended, `subtype` does not. Its cost counts over all runs of a session,
so what is reported is the part since the last result.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leasehold.agents.claude_control import INIT, Talk
from leasehold.agents.claude_words import Words
from leasehold.agents.conversation import TOO_LONG, Said, unknown
from leasehold.agents.start import command, environment
from leasehold.models import Command, Control, Event, Input, Run

IN_VAIN = 3
"""Answers in a row that the key is refused, after which nothing else is expected; it would go on for minutes."""
PROTOCOL = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--permission-prompt-tool", "stdio",
    "--replay-user-messages", "--include-partial-messages",
)  # fmt: skip
SUBTYPES = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget"}
TERMINAL = {"prompt_too_long": "context_overflow", "max_turns": "max_turns", "refusal": "refusal"}
STATUS = {401: "auth", 403: "auth", 429: "rate_limit"}
QUOTA = re.compile(r"insufficient_quota|usage limit|quota|limit reached|credit balance", re.IGNORECASE)
NO_SESSION = re.compile(r"no conversation found", re.IGNORECASE)
USAGE = {"inputTokens": "input_tokens", "outputTokens": "output_tokens", "cacheReadInputTokens": "cached_tokens"}


class Claude(Words):
    """The dialect of stream-json."""

    def launch(self, run: Run, workspace: str) -> Command:
        """command[1] is the program, what follows are its options: last, because some take as many words as there are."""
        program, *options = command(run, workspace)
        resume = ("--resume", run.session) if run.session else ()
        env = {"DISABLE_AUTOUPDATER": "1", **environment(run)}
        return Command(argv=(*run.launcher, program, *PROTOCOL, *resume, *options), env=env, converses=True)

    @property
    def done(self) -> bool:
        """The result of all that it was told was received, or it will only try in vain from here on."""
        return self.known.ended is not None and not self.talk.busy

    @property
    def owed(self) -> Sequence[Input]:
        """The handshake and the prompt; then controls, and answers to what it asks."""
        return self.talk.inputs

    def taken(self, key: str) -> None:
        """The keeper has it."""
        self.talk.paid(key)

    @property
    def ready(self) -> bool:
        """It has answered the handshake, and is at work: what interrupts it before would interrupt nothing."""
        return self.talk.ready and self.talk.begun

    def send(self, control: Control) -> None:
        """Owe it a control."""
        self.talk.send(control)

    @property
    def waiting(self) -> bool:
        """It asks for permission, or has a question."""
        return self.talk.waiting

    @property
    def over(self) -> bool:
        """Done, and nothing is owed."""
        return self.done and not self.talk.owed and not self.waiting

    def freeze(self) -> Mapping[str, Any]:
        """What is known, what was said to it, and what it asks."""
        return {**asdict(self.known), "talk": asdict(self.talk)}

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().thaw({name: each for name, each in state.items() if name != "talk"})
        self.talk = Talk(**state["talk"])

    def translate(self, said: Said) -> Sequence[Event]:
        """One line, behind what came too late to be sent."""
        events = self._line(said)
        return (*self.talk.refusals(), *events)

    def guess(self, said: Said) -> Sequence[Event]:
        """A request is refused, a tool is at work or has ended."""
        match said["type"]:
            case "control_request":
                return (self.talk.refuse(str(said["request_id"]), self.name(said["request_id"]), TOO_LONG),)
            case "assistant" | "user" as who:
                return [*self.blocks(who, said["message"]["content"])]
        return ()

    def _line(self, said: Said) -> Sequence[Event]:
        match said["type"]:
            case "system":
                return self._system(said)
            case "assistant":
                return self.assistant(said)
            case "user":
                return tuple(self.user(said))
            case "stream_event":
                return self.streamed(said)
            case "rate_limit_event":
                return (self._limit(said["rate_limit_info"]),)
            case "result":
                return (*self._used(said), *self._result(said))
        return self._control(said)

    def _control(self, said: Said) -> Sequence[Event]:
        match said["type"]:
            case "control_request":
                events = self.talk.requested(said, self.name(said["request_id"]))
                return events or (unknown(said, f"control_request {said['request'].get('subtype')}"),)
            case "control_cancel_request":
                return tuple(self.talk.withdrawn(id=said["request_id"]))
            case "control_response":
                return self._responded(said["response"])
            case "command_lifecycle":
                return self._lifecycle(said)
            case "keep_alive" | "tool_progress":
                return ()
        return (unknown(said),)

    def _lifecycle(self, said: Said) -> Sequence[Event]:
        """Of something that it was told."""
        if said["state"] == "started" and self.talk.heard(said["command_uuid"]):
            self.known.ended = None
        return ()

    def _responded(self, response: Said) -> Sequence[Event]:
        events = self.talk.responded(response)
        if response["request_id"] == INIT and response.get("subtype") != "success":
            self.talk.give_up()
            words = f"it would not begin a conversation: {response.get('error')}"
            return (*events, self.end(ok=False, reason="protocol", message=words))
        return events

    def _system(self, said: Said) -> Sequence[Event]:
        match said.get("subtype"):
            case "init":  # of each turn
                return () if said["session_id"] == self.known.session else (self.begin(said["session_id"]),)
            case "api_retry":
                return (self._retry(said),)
            case "status" | "background_tasks_changed" | "task_updated":  # said better elsewhere
                return ()
            case "task_started" | "task_progress" | "task_notification":
                data = {"id": said.get("tool_use_id"), "status": said.get("status")}
                return (Event("progress", said.get("summary") or said.get("description"), data, phase="task"),)
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
        if self.known.refused >= IN_VAIN and not self.talk.closed:
            self.talk.give_up()
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

    def _used(self, said: Said) -> Iterator[Event]:
        for model, used in (said.get("model_usage_since_last_result") or {}).items():
            tokens = {ours: used.get(theirs, 0) for theirs, ours in USAGE.items()}
            yield Event("usage", None, {**tokens, "model": model, "cost_usd": used.get("costUSD")})

    def _result(self, said: Said) -> Iterator[Event]:
        """Of a turn; whether the run ends with it depends on what else it was told."""
        words = str(said.get("result") or "; ".join(map(str, said.get("errors") or [])))
        terminal = said.get("terminal_reason")
        stopped = str(terminal).startswith("aborted") and self.talk.interrupted
        yield from self.talk.result(said.get("user_message_uuids") or ())
        if self.talk.closed:  # how it ended is known
            yield Event("error", words, {"fatal": False}, "warning")
        elif stopped:
            yield self.end(ok=False, reason="turn_interrupted", message="the turn was interrupted, as somebody asked")
        elif said.get("is_error") or terminal not in {None, "completed"}:
            yield self.end(ok=False, reason=reason_of(said, words), message=words or terminal)
        else:
            self.known.words = words or self.known.words
            yield self.end(ok=True, message=self.known.words)


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
