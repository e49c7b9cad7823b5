"""A small ACP agent that no table knows: what it does is in its prompt, a line each. The standard library only.

say: words | think: words | write: FILE (asks first) | form (asks with a form) | slowly (until it is cancelled) | fail: words | leave
"""

import itertools
import json
import sys
from pathlib import Path

numbers = itertools.count(100)


class Cancelled(Exception):
    pass


def tell(**said):
    print(json.dumps({"jsonrpc": "2.0", **said}), flush=True)


def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


class Agent:
    """One process of it. Its sessions are files beside its work, so that another process finds them."""

    def __init__(self):
        self.session, self.file = None, None

    def live(self):
        while True:
            said = hear()
            handler = getattr(self, said.get("method", "").replace("/", "_"), None)
            if handler is None:
                continue
            try:
                tell(id=said["id"], result=handler(said["params"]))
            except Cancelled:
                tell(id=said["id"], result={"stopReason": "cancelled"})
            except LookupError as error:
                tell(id=said["id"], error={"code": -32002, "message": f"Resource not found: {error}"})
            except RuntimeError as error:
                tell(id=said["id"], error={"code": -32603, "message": str(error)})

    def initialize(self, params):
        return {"protocolVersion": params["protocolVersion"], "agentCapabilities": {"loadSession": True}}

    def session_new(self, params):
        if Path(params["cwd"]) != Path.cwd():
            raise RuntimeError(f"I am in {Path.cwd()}, not in {params['cwd']}")
        self.session = f"s{next(numbers)}"
        self.file = Path(params["cwd"]) / f".{self.session}"
        self.file.write_text("")
        return {"sessionId": self.session}

    def session_load(self, params):
        self.session = params["sessionId"]
        self.file = Path(params["cwd"]) / f".{self.session}"
        if not self.file.exists():
            raise LookupError(self.session)
        for line in self.file.read_text().splitlines():
            self.update("user_message_chunk", content={"type": "text", "text": line})
            self.update("agent_message_chunk", content={"type": "text", "text": "as before"})

    def session_prompt(self, params):
        prompt = params["prompt"][0]["text"]
        with self.file.open("a") as file:
            file.write(prompt.replace("\n", " ") + "\n")
        for line in prompt.splitlines():
            word, _, rest = line.partition(": ")
            if (stop := getattr(self, word, self.say)(rest)) is not None:
                return {"stopReason": stop}
        return {"stopReason": "end_turn", "usage": {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}}

    def update(self, what, /, **more):
        tell(method="session/update", params={"sessionId": self.session, "update": {"sessionUpdate": what, **more}})

    def say(self, words):
        for piece in words.split(" "):
            self.update("agent_message_chunk", content={"type": "text", "text": f"{piece} "})

    def think(self, words):
        self.update("agent_thought_chunk", content={"type": "text", "text": words})

    def write(self, name):
        call = f"call-{next(numbers)}"
        tool = {"toolCallId": call, "title": f"Write {name}", "kind": "edit", "rawInput": {"path": name}}
        self.update("tool_call", status="pending", **tool)
        options = [
            {"optionId": "y", "name": "Yes", "kind": "allow_once"}, {"optionId": "n", "name": "No", "kind": "reject_once"},
        ]  # fmt: skip
        outcome = self.request("session/request_permission", toolCall=tool, options=options)["outcome"]
        if outcome["outcome"] == "cancelled":
            raise Cancelled
        done = outcome["optionId"] == "y"
        if done:
            (self.file.parent / name).write_text("hello\n")
        diff = [{"type": "diff", "path": name, "newText": "hello\n"}] if done else []
        self.update("tool_call_update", toolCallId=call, status="completed" if done else "failed", content=diff)

    def form(self, _):
        colour = {
            "type": "string",
            "title": "Colour",
            "oneOf": [{"const": "r", "title": "Red"}, {"const": "b", "title": "Blue"}],
        }
        schema = {"type": "object", "properties": {"colour": colour, "count": {"type": "integer"}}}
        given = self.request("elicitation/create", mode="form", message="Which one?", requestedSchema=schema)
        self.say(json.dumps(given, sort_keys=True))

    def slowly(self, _):
        self.say("I begin")
        while hear().get("method") != "session/cancel":
            pass
        raise Cancelled

    def fail(self, words):
        raise RuntimeError(words)

    def leave(self, _):
        sys.exit(0)

    def read(self, _):
        self.say(json.dumps(self.request("fs/read_text_file", path="/etc/passwd")))

    def stop(self, reason):
        return reason

    def request(self, method, **params):
        number = next(numbers)
        tell(id=number, method=method, params={"sessionId": self.session, **params})
        while True:
            said = hear()
            if said.get("id") == number:
                return said.get("result") or said["error"]
            if said.get("method") == "session/cancel":
                raise Cancelled


if __name__ == "__main__":
    Agent().live()
