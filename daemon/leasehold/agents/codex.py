"""Codex, in conversation: `codex app-server`, its JSON-RPC over stdio. If it fails, one run fails.

Which sandbox, which approvals, which model: options of the agent's command (`-c sandbox_mode=workspace-write`), or its config file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leasehold.agents import codex_asked, codex_errors, jsonrpc
from leasehold.agents.codex_items import TOOLS
from leasehold.agents.codex_talk import PROMPT, Talk, told
from leasehold.agents.codex_told import UNWANTED, Told
from leasehold.agents.conversation import TOO_LONG, Known, Said
from leasehold.agents.heads import plain
from leasehold.agents.jsonrpc import Message
from leasehold.agents.start import command, environment
from leasehold.models import Command, Control, Event, Input, Run

KEY = re.compile(rf"{PROMPT}|turn:\d+")
"""What has a turn of its own, or goes into one."""

OF_NOW = {
    "sandbox_mode": "sandbox", "approval_policy": "approvalPolicy", "model": "model", "model_provider": "modelProvider",
}  # fmt: skip
"""What a thread that is resumed would have as it was, by the names of its configuration."""


class Codex(Told):
    """The dialect of `codex app-server`."""

    rejects_in_silence = False

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.talk.prompt, self.talk.resumes = run.prompt, run.session
        client = {"name": "leasehold", "title": "Leasehold", "version": "1"}
        capabilities = {"experimentalApi": True, "optOutNotificationMethods": list(UNWANTED)}
        self._ask("init", "initialize", {"clientInfo": client, "capabilities": capabilities})

    def launch(self, run: Run, workspace: str) -> Command:
        """command[1] is the program, what follows are its options; its directory is the one it is started in."""
        program, *options = command(run, workspace)
        return Command(argv=(*run.launcher, program, *options, "app-server"), env=environment(run), converses=True)

    @property
    def owed(self) -> Sequence[Input]:
        """What it is to hear."""
        return self.talk.inputs()

    def taken(self, key: str) -> None:
        """The keeper has it."""
        self.talk.taken(key)

    @property
    def ready(self) -> bool:
        """Its thread is open."""
        return self.talk.thread is not None and not self.talk.closed

    def send(self, control: Control) -> None:
        """Owe it this control."""
        self.talk.send(control)

    @property
    def waiting(self) -> bool:
        """A human was asked, and has not answered."""
        return any("by" not in asked for asked in self.talk.asked.values())

    @property
    def done(self) -> bool:
        """Its last turn has ended."""
        return self.talk.closed or (self.known.ended is not None and self.talk.settled)

    @property
    def over(self) -> bool:
        """And there is nothing more to say."""
        talk = self.talk
        return talk.closed or (self.done and not talk.owed and talk.cleaning is None)

    def freeze(self) -> Mapping[str, Any] | None:
        """All that is known, and all that was said."""
        return {**asdict(self.known), "talk": asdict(self.talk)}

    def thaw(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        known = {**state}
        self.talk = Talk(**known.pop("talk"))
        self.known = Known(**known)

    def speaks(self, said: Said) -> bool:
        """Is it a message?"""
        return jsonrpc.read(said) is not None

    def translate(self, said: Said) -> Sequence[Event]:
        """One message."""
        message = jsonrpc.read(said)
        assert message is not None
        match message.kind:
            case "answer":
                return self._answered(message)
            case "request":
                return self._asked(message)
        return self.told(message.method, message.params)

    def guess(self, said: Said) -> Sequence[Event]:
        """A request is refused, a tool that is at work has ended."""
        message = jsonrpc.read(said)
        assert message is not None
        if message.kind == "request":
            return (self._refuse(message, self.name(message.id), TOO_LONG),)
        item = plain(message.params["item"])
        if message.method != "item/completed" or item["type"] not in TOOLS or item["id"] not in self.known.open:
            return ()
        ok = item["status"] == "completed" if "status" in item else None
        return (self.finish_tool(item["id"], str(item.get("tool") or TOOLS[item["type"]]), ok=ok, cut=True),)

    def _ask(self, key: str, method: str, params: Mapping[str, Any]) -> None:
        self.talk.owe(key, jsonrpc.request(key, method, params))

    def _answered(self, message: Message) -> Sequence[Event]:
        key, _, verb = str(message.id).rpartition("/")
        if verb in ("start", "steer", "interrupt") and not KEY.fullmatch(key):
            verb = ""
        match verb:
            case "init" | "config" | "open":
                self.talk.taken(verb)
                return self._opened(verb, message)
            case "clean":
                self.talk.taken(str(message.id))
                self.talk.cleaning = None
                return ()
            case "start":
                return self._began(key, message)
            case "steer" if message.error is not None:
                self.talk.missed(key)
                return ()
            case "steer":
                self.talk.hear(key)
                self.talk.members.append(key)
                return ()
            case "interrupt":
                return (self._interrupted(key, message),)
        return (Event("unknown", f"an answer to {message.id}", {}, "debug"),)

    def _opened(self, verb: str, message: Message) -> Sequence[Event]:
        """It is there; it has said how it is configured; its thread is open."""
        if verb == "config":
            self._resume(message.result)
            return ()
        if message.error is not None:
            return self._cannot_begin(message, "session_rejected" if verb == "open" and self.known.resumed else None)
        if verb == "open":
            thread = message.result["thread"]["id"]
            begun = self.begin(thread)
            self.talk.opened(thread)
            return (begun,)
        self.talk.owe("initialized", jsonrpc.notification("initialized"))
        if self.talk.resumes:
            self._ask("config", "config/read", {})
        else:
            self._ask("open", "thread/start", {})
        return ()

    def _resume(self, said: object) -> None:
        """A thread remembers where it was, and what it was allowed: what its agent's row says now counts, in the directory of now."""
        config = said.get("config") if isinstance(said, dict) else None
        config = config if isinstance(config, dict) else {}
        now = {theirs: config[ours] for ours, theirs in OF_NOW.items() if config.get(ours) is not None}
        thread = {
            "threadId": self.talk.resumes,
            "cwd": ".",
            "excludeTurns": True,
        }  # a line has not room for all of them
        self._ask("open", "thread/resume", {**thread, **now})

    def _cannot_begin(self, message: Message, reason: str | None) -> Sequence[Event]:
        self.talk.close()
        return (self.end(ok=False, reason=reason, message=message.trouble),)

    def _began(self, key: str, message: Message) -> Sequence[Event]:
        if message.error is None:
            self.known.ended = None
            self.talk.began(key, str(message.result["turn"]["id"]))
            return ()
        if key == PROMPT:
            return self._cannot_begin(message, codex_errors.reason_of(message.error))
        refused = self.talk.refused(key, message.trouble)
        self.talk.go_on()
        return (refused,)

    def _interrupted(self, key: str, message: Message) -> Event:
        if message.error is not None:
            return self.talk.refused(key, message.trouble)
        self.talk.hear(key)
        return told(key, "ended")

    def _refuse(self, message: Message, name: str, why: str) -> Event:
        assert message.id is not None
        self.talk.owe(f"reply:{name}", jsonrpc.refusal(message.id, why))
        return Event("unknown", f"it asked for {message.method}, which is refused", {}, "debug")

    def _asked(self, message: Message) -> Sequence[Event]:
        name = self.name(message.id)
        if not codex_asked.understood(message.method, message.params):
            return (self._refuse(message, name, f"nobody here can answer {message.method}"),)
        files = self.talk.files.get(str(message.params.get("itemId")))
        try:
            event, kept = codex_asked.ask(name, message.method, message.params, files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # unanswered it would wait for ever
            return (self._refuse(message, name, f"it was not understood: {type(error).__name__}"),)
        before = self.talk.forget(message.id)  # it would take an answer to that for one to this
        self.talk.asked[name] = {"id": message.id, "method": message.method, "kept": kept}
        return (*before, event)
