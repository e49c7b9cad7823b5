"""The dialect of the scripted agent `program.py`: as small as a conversation can be. Pure, like the real ones."""

import json

from leasehold.agents.start import command, environment
from leasehold.models import Command, Event, Input, Verdict


class Chat:
    def __init__(self, run):
        self.prompt = run.prompt
        self.queue = [_input("init", begin=True)]
        self.session = None
        self.asked = []
        self.known = []
        self.prompts = ["start"]
        self.in_tool = False

    @property
    def done(self):
        return not self.prompts

    @property
    def owed(self):
        return tuple(Input(key, raw.encode()) for key, raw in self.queue)

    def taken(self, key):
        self.queue = [(each, raw) for each, raw in self.queue if each != key]

    @property
    def ready(self):
        return self.session is not None

    @property
    def waiting(self):
        return bool(self.asked)

    @property
    def over(self):
        return self.done

    def send(self, control):
        if control.key in self.known or (self.done and control.kind != "prompt"):
            return
        self.known.append(control.key)
        if control.kind == "prompt":
            self.prompts.append(control.key)
            self.queue.append(_input(control.key, prompt=control.text))
        elif control.kind == "answer":
            asked = control.data["request"]
            if asked in self.asked:
                self.asked.remove(asked)
                self.queue.append(_input(control.key, to=asked, **{"with": {"decision": control.data["decision"]}}))
        else:
            self.queue.append(_input(control.key, steer=control.text))

    def launch(self, run, workspace):
        return Command(argv=(*run.launcher, *command(run, workspace)), env=environment(run), converses=True)

    def receive(self, line):
        try:
            said = json.loads(line)
        except ValueError:
            return None
        return tuple(self.translate(said))

    def translate(self, said):
        if "session" in said:
            self.session = said["session"]
            self.queue.append(_input("start", prompt=self.prompt))
            yield Event("session", None, {"id": self.session})
        elif "word" in said:
            yield Event("message", str(said["word"]), {"role": "agent"})
        elif "poll" in said:
            self.queue.append(_input(f"reply:{said['poll']}", to=said["poll"], **{"with": {"decision": "polled"}}))
        elif "ask" in said:
            self.asked.append(said["ask"])
            options = [
                {"id": "yes", "name": "Yes", "kind": "allow_once"},
                {"id": "no", "name": "No", "kind": "reject_once"},
            ]
            yield Event(
                "permission",
                f"May I {said['ask']}?",
                {"id": said["ask"], "tool": "shell", "input": {}, "options": options},
            )
        elif "answered" in said:
            self.asked = [each for each in self.asked if each != said["answered"]]
            yield Event("progress", f"{said['answered']}: {said['decision']}", {})
        elif "steered" in said:
            self.known.append(said["steered"])
            yield Event(
                "turn", None, {"turn": int(said["steered"].partition(":")[2]), "state": "ended", "why": "heard"}
            )
        elif "began" in said:
            self.known.append(said["began"])
            self.prompts = [*(each for each in self.prompts if each != said["began"]), said["began"]]
        elif "done" in said:
            self.prompts = [each for each in self.prompts if each != said["done"]]
            if said["done"] == "start":
                yield Event("result", None, {"ok": True})
            else:
                number = int(said["done"].partition(":")[2])
                yield Event("turn", None, {"turn": number, "state": "ended", "why": "done"})

    def verdict(self, exit_code):
        if exit_code == 0 and self.done:
            return Verdict("succeeded")
        return Verdict("failed", "exit_code", f"exited with code {exit_code}")

    def freeze(self):
        return {name: getattr(self, name) for name in ("queue", "session", "asked", "known", "prompts")}

    def thaw(self, state):
        for name, value in state.items():
            setattr(self, name, value)
        self.queue = [tuple(each) for each in self.queue]


def _input(key, **words):
    return key, json.dumps({"key": key, **words}) + "\n"
