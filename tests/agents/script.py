"""The prompt is the model's script: which lines of it mean what. If it fails, the scripted model says nonsense.

run: echo hello > proof.txt      a call of the agent's own shell tool; any number, in order
ask: touch /etc/proof            the same, and the agent is to ask for permission first, if it can
call: NAME {"json": "arguments"} a call of any tool
say: these words                 the last answer; "Done." if left out
slowly                           the last answer comes word by word, one in SLOW seconds; without `say` it has no end
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

LINE = re.compile(r"^(run|ask|call|say): ?(.*)$|^(slowly)$", re.MULTILINE)
SHELLS = ("exec_command", "shell_command", "shell", "Bash", "bash", "run_shell_command")
"""What agents call their shell, the first one that is offered is taken."""
DONE = "Done."


@dataclass(frozen=True)
class Call:
    """A tool and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass
class Script:
    """What is to be done about one prompt, in order."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    say: str = DONE
    slowly: bool = False

    @classmethod
    def read(cls, prompt: str) -> "Script":
        """The lines of the prompt that are script."""
        script = cls()
        for word, rest, slowly in LINE.findall(prompt):
            if slowly:
                script.slowly = True
            elif word == "say":
                script.say = rest
            else:
                script.calls.append((word, rest))
        return script

    def next(self, results: int, tools: dict[str, Any]) -> Call | None:
        """The call that is due after so many results; None: the last answer is. No state: an agent may ask twice."""
        if results >= len(self.calls) or not tools:  # without tools it is asked for something else: a title, a summary
            return None
        word, rest = self.calls[results]
        if word == "call":
            name, _, arguments = rest.partition(" ")
            return Call(name, json.loads(arguments or "{}"))
        return shell(rest, tools, asks=word == "ask")


def shell(command: str, tools: dict[str, Any], *, asks: bool = False) -> Call:
    """The agent's own way to run a command."""
    name = next((each for each in SHELLS if each in tools), "no_shell_is_offered")
    if name == "exec_command":
        more = {"sandbox_permissions": "require_escalated", "justification": "May I?"} if asks else {}
        return Call(name, {"cmd": command, "yield_time_ms": 10_000, **more})
    if name == "shell":
        return Call(name, {"command": ["bash", "-lc", command]})
    return Call(name, {"command": command, "description": "scripted"})


def is_script(text: str) -> bool:
    """Agents put words of their own into the user's mouth; those have no line of a script."""
    return LINE.search(text) is not None
