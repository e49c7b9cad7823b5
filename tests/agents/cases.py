"""What is recorded of the real agents: the cases that all of them have, and those of Claude Code. `record.py` records them."""

import json
from dataclasses import dataclass

from agents.talk import Cue

PROOF = "run: echo hello > proof.txt\nsay: The proof is written."
TWICE = "run: python3 -c 'print(6 * 7)'\nrun: python3 -c 'print(6 * 7)'\nsay: Twice."
LONG = "run: python3 -c 'import time; time.sleep(4)'\nrun: echo second\nsay: As it was planned."
LARGE = f"call: Write {json.dumps({'file_path': 'large.txt', 'content': 'large ' * 4000})}\nsay: It is written."
SLEEPS = {"command": "python3 -c 'import time; time.sleep(3)'", "run_in_background": True, "description": "sleeps"}
BEHIND = f"call: Bash {json.dumps(SLEEPS)}\nsay: It goes on by itself."
QUESTIONS = [
    {"question": "What to drink?", "header": "Drink", "multiSelect": False, "options": [
        {"label": "Tea", "description": "Hot."}, {"label": "Water", "description": "Cold."},
    ]},
    {"question": "What goes with it?", "header": "With", "multiSelect": True, "options": [
        {"label": "Milk", "description": "White."}, {"label": "Salt", "description": "Odd."},
    ]},
]  # fmt: skip
ASK = f"call: AskUserQuestion {json.dumps({'questions': QUESTIONS})}\nsay: Thank you."
NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Case:
    """One recording. `resume`: 'last' is the session of the case before; `options` are in the place of the program's own."""

    name: str
    scenario: str = "ok"
    prompt: str = PROOF
    resume: str | None = None
    options: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    interrupt: bool = False
    cues: tuple[Cue, ...] = ()


COMMON = (
    Case("ok"),
    Case("resume", prompt="run: cat proof.txt\nsay: It says hello.", resume="last"),
    Case("resume_unknown", resume=NOBODY),
    Case("tool_fails", prompt="run: exit 3\nsay: It did not work."),
    Case("says_nothing", prompt="say: "),
    *(
        Case(name, name)
        for name in ("400", "401", "403", "429", "429once", "500", "quota", "overflow", "drop", "garbage")
    ),
)


def begun(kind: str, text: str | None = None) -> Cue:
    """As soon as a tool is at work."""
    return Cue("tool_call", kind, text, given={"status": "started"})


def answer(after: str, **data: object) -> tuple[Cue, ...]:
    """As soon as that is asked."""
    return (Cue(after, "answer", data=data),)


CLAUDE_CASES = (
    *COMMON,
    Case("529", "529"),
    Case("interrupted", prompt=LONG, cues=(begun("SIGINT"),)),
    Case("denied", options=("--permission-mode", "dontAsk")),
    Case("denied_by_rule", options=("--disallowedTools", "Bash(echo:*)")),
    Case("bypass_as_root", options=("--permission-mode", "bypassPermissions")),
    Case("session_id", options=("--session-id", NOBODY, "--allowedTools", "Bash")),
    Case("session_id_again", options=("--session-id", NOBODY, "--allowedTools", "Bash")),
    Case("401_for_long", "401", env=(("CLAUDE_CODE_MAX_RETRIES", "5"),)),
    Case("max_turns", prompt="run: true\nrun: true\nrun: true", options=("--max-turns", "1", "--allowedTools", "Bash")),
    Case("budget", options=("--max-budget-usd", "0.001", "--allowedTools", "Bash")),
    Case("allowed", options=(), cues=answer("permission", decision="allow")),
    Case("allowed_always", prompt=TWICE, options=(), cues=answer("permission", option="always")),
    Case("refused", options=(), cues=answer("permission", decision="deny", message="Not today.")),
    Case("refused_and_stopped", options=(), cues=answer("permission", option="stop")),
    Case("question", prompt=ASK, cues=answer("question", answers={"1": ["Tea"], "2": ["Milk", "Salt"]})),
    Case("question_in_words", prompt=ASK, cues=answer("question", message="Whatever there is.")),
    Case("question_refused", prompt=ASK, cues=answer("question", decision="deny")),
    Case("allowed_long", prompt=LARGE, options=(), cues=answer("permission", decision="allow")),
    Case("command_of_its_own", prompt="/cost"),
    Case("in_the_background", prompt=BEHIND),
    Case("steered", prompt=LONG, cues=(begun("steer", "say: Steered."),)),
    Case("prompted", prompt=LONG, cues=(begun("prompt", "say: Prompted."),)),
    Case("prompted_after", cues=(Cue("result", "prompt", "say: Prompted."),)),
    Case("stopped", prompt=LONG, cues=(begun("interrupt"),)),
    Case("stopped_words", prompt="slowly", cues=(Cue("delta", "interrupt"),)),
    Case("stopped_asking", options=(), cues=(Cue("permission", "interrupt"),)),
    Case("stopped_idle", cues=(Cue("result", "interrupt"),)),
    Case("stopped_then_steered", prompt=LONG, cues=(begun("interrupt"), Cue("turn", "steer", "say: Steered."))),
    Case("steered_then_stopped", prompt=LONG, cues=(begun("steer", "say: Steered."), begun("interrupt"))),
)
