"""What is recorded of Codex's app server, beside what is recorded of all."""

import json

from agents.cases import COMMON, Case, answer, begun
from agents.programs import QUESTIONS_ON, READ_ONLY
from agents.talk import Cue

LONG = "run: sleep 3\nrun: echo second\nsay: As it was planned."
VERY_LONG = "run: sleep 60; true\nsay: It has slept."
ASKS = "ask: touch asked.txt\nsay: Asked."
ASKS_TWICE = "ask: touch often.txt\nask: touch often.txt\nsay: Asked."
QUESTIONS = [
    {"id": "drink", "question": "What to drink?", "header": "Drink", "options": [
        {"label": "Tea", "description": "Hot."}, {"label": "Water", "description": "Cold."},
    ]},
]  # fmt: skip
QUESTION = f"call: request_user_input {json.dumps({'questions': QUESTIONS})}\nsay: Thank you."


CODEX_CASES = (
    *COMMON,
    Case("401_for_long", "401", options=("-c", "model_providers.scripted.stream_max_retries=9")),
    Case("limit", "limit"),
    Case("steered", prompt=LONG, cues=(begun("steer", "say: Steered."),)),
    Case("steered_after", cues=(Cue("result", "steer", "say: Steered."),)),
    Case("prompted", prompt=LONG, cues=(begun("prompt", "say: Prompted."),)),
    Case("prompted_after", cues=(Cue("result", "prompt", "say: Prompted."),)),
    Case("stopped", prompt=VERY_LONG, cues=(begun("interrupt"),)),
    Case("stopped_words", prompt="slowly", cues=(Cue("delta", "interrupt"),)),
    Case("stopped_idle", cues=(Cue("result", "interrupt"),)),
    Case("stopped_then_prompted", prompt=VERY_LONG, cues=(begun("interrupt"), Cue("turn", "prompt", "say: Prompted."))),
    Case("allowed", prompt=ASKS, options=READ_ONLY, cues=answer("permission", decision="allow")),
    Case(
        "allowed_always",
        prompt=ASKS_TWICE,
        options=READ_ONLY,
        cues=answer("permission", option="acceptWithExecpolicyAmendment"),
    ),
    Case("denied", prompt=ASKS, options=READ_ONLY, cues=answer("permission", decision="deny")),
    Case("denied_and_stopped", prompt=ASKS, options=READ_ONLY, cues=answer("permission", option="cancel")),
    Case("stopped_asking", prompt=ASKS, options=READ_ONLY, cues=(Cue("permission", "interrupt"),)),
    Case("question", prompt=QUESTION, options=QUESTIONS_ON, cues=answer("question", answers={"drink": ["Tea"]})),
    Case("question_refused", prompt=QUESTION, options=QUESTIONS_ON, cues=answer("question", decision="deny")),
    Case("killed", prompt=VERY_LONG, cues=(begun("SIGKILL"),)),
)
