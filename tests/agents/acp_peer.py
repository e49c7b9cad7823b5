"""An ACP fold and whoever it speaks with, by hand: each thing it owes is held against the protocol's own models when it is taken."""

import json

from acp import schema
from agents.runs import run_of
from leasehold.agents.acp import Acp
from leasehold.models import Control

REQUESTS = {
    "initialize": schema.InitializeRequest, "session/new": schema.NewSessionRequest, "session/load": schema.LoadSessionRequest,
    "session/resume": schema.ResumeSessionRequest, "session/set_mode": schema.SetSessionModeRequest,
    "session/prompt": schema.PromptRequest, "session/cancel": schema.CancelNotification,
}  # fmt: skip
ELICITED = {
    "accept": schema.AcceptElicitationResponse, "decline": schema.DeclineElicitationResponse,
    "cancel": schema.CancelElicitationResponse,
}  # fmt: skip
CAN_ALL = {"loadSession": True, "sessionCapabilities": {"resume": {}}}
OPTIONS = [
    {"optionId": "forever", "name": "Always", "kind": "allow_always"}, {"optionId": "once", "name": "Yes", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]  # fmt: skip


def fits(said):
    """Nothing that the protocol's own models would refuse, or would not know."""
    assert said["jsonrpc"] == "2.0"
    if "method" in said:
        if said["method"].startswith("_"):
            return
        model = REQUESTS[said["method"]].model_validate(said["params"])
        assert not model.model_extra
    elif "result" in said and "action" in said["result"]:
        ELICITED[said["result"]["action"]].model_validate(said["result"])
    elif "result" in said:
        schema.RequestPermissionResponse.model_validate(said["result"])
    else:
        assert isinstance(said["error"]["code"], int)


class Peer:
    """The agent's side of one conversation, and the keeper's."""

    def __init__(self, **run):
        self.fold = Acp(run_of("acp", **{"workspace": "/work", **run}))
        self.told = {}
        self.events = []
        self.keys = []
        self.lines = []
        self.take()

    def take(self):
        """The keeper takes what is owed; each key once."""
        for owed in self.fold.owed:
            said = json.loads(owed.raw)
            fits(said)
            if owed.key not in self.told:
                self.keys.append(owed.key)
                self.told[owed.key] = said
            self.fold.taken(owed.key)

    def says(self, **said):
        """One line. Answers its events; the fold is thawed from what it was frozen to, as after each death of a daemon."""
        again = Acp(self.fold._run)
        again.thaw(json.loads(json.dumps(self.fold.freeze())))
        line = json.dumps({"jsonrpc": "2.0", **said}).encode()
        self.lines.append(line)
        events = list(self.fold.receive(line))
        assert events == list(again.receive(line))
        assert (again.owed, again.over, again.waiting, again.in_tool) == (
            self.fold.owed, self.fold.over, self.fold.waiting, self.fold.in_tool,
        )  # fmt: skip
        self.events += events
        self.take()
        return events

    def updates(self, what, /, **more):
        return self.says(method="session/update", params={"sessionId": "s", "update": {"sessionUpdate": what, **more}})

    def words(self, text, **more):
        return self.updates("agent_message_chunk", content={"type": "text", "text": text}, **more)

    def hello(self, name="some-agent", can=CAN_ALL, **more):
        info = {"name": name, "version": "1"}
        return self.says(id="init", result={"protocolVersion": 1, "agentCapabilities": can, "agentInfo": info, **more})

    def begins(self, name="some-agent", **more):
        """Until its first prompt is said."""
        self.hello(name, **more)
        self.says(id="open", result={"sessionId": "s"})
        if "mode" in self.told:
            self.says(id="mode", result={})
        assert "start" in self.told
        return self

    def asks(self, number=0, options=OPTIONS, **tool):
        call = {
            "toolCallId": f"c{number}",
            "title": "rm -r /",
            "kind": "execute",
            "rawInput": {"command": "rm -r /"},
            **tool,
        }
        params = {"sessionId": "s", "toolCall": call, "options": options}
        return self.says(id=number, method="session/request_permission", params=params)

    def ends(self, stop="end_turn", key="start", **more):
        return self.says(id=key, result={"stopReason": stop, **more})

    def send(self, kind, number, text=None, **data):
        self.fold.send(Control(kind, number, text, data))
        self.take()

    def the(self, kind):
        return [event for event in self.events if event.kind == kind]

    def kinds(self, *but):
        return [event.kind for event in self.events if event.kind not in ("progress", "delta", *but)]

    def verdict(self, exit_code=0):
        verdict = self.fold.verdict(exit_code)
        return verdict.outcome, verdict.reason
