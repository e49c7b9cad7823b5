"""Record what real ACP agents say: `make record-acp`. Each case is a conversation against the scripted model, as in `record`.

A transcript's first line is about the recording; `sent` are the controls, each with the number of lines that were heard before it.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agents.acp_programs import PROGRAMS, AcpProgram
from agents.acp_talk import ALLOW, DENY, Cue, Talked, talk
from agents.cases import NOBODY
from agents.record import HERE, STRING, anywhere, trimmed
from agents.runs import run_of
from agents.server import ModelServer
from leasehold.agents.registry import adapter_for

ASKED = "ask: echo hello > proof.txt\nsay: The proof is written."
LONG = "ask: python3 -c 'import time; time.sleep(30)'"
UNTOLD = ("available_commands_update", "config_option_update")
"""Updates of which only the kind is kept: lists of what a vendor's program can do."""


@dataclass(frozen=True)
class Case:
    """One recording. `resume`: 'last' is the session of the case before."""

    name: str
    scenario: str = "ok"
    prompt: str = ASKED
    resume: str | None = None
    cues: tuple[Cue, ...] = ()


CASES = (
    Case("ok", cues=(ALLOW,)),
    Case("resume", prompt="say: It goes on.", resume="last"),
    Case("resume_unknown", prompt="say: It goes on.", resume=NOBODY),
    Case("deny", cues=(DENY,)),
    Case("tool_fails", prompt="ask: touch y; exit 3\nsay: It did not work.", cues=(ALLOW,)),
    Case("interrupted_asking", cues=(Cue("permission", "interrupt"),)),
    Case("interrupted_in_tool", prompt=LONG, cues=(ALLOW, Cue("permission", "interrupt", pause=2.5))),
    Case("interrupted_speaking", "slow", "say: x", cues=(Cue("delta", "interrupt", pause=0.5),)),
    Case("more", prompt="ask: touch x\nsay: One.", cues=(Cue("permission", "prompt", "say: Two."), ALLOW)),
    *(Case(name, name) for name in ("400", "401", "429", "quota", "overflow")),
)  # fmt: skip


def play(
    program: AcpProgram, case: Case, server: ModelServer, home: Path, session: str | None
) -> tuple[Talked, list[str]]:
    """Have that conversation."""
    workspace = home.parent / "workspace"
    workspace.mkdir(exist_ok=True)
    if not (workspace / ".git").exists():
        subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    env = program.configure(home, server.url(case.scenario))
    run = run_of("acp", program.command, prompt=case.prompt, env=env, session=session, workspace=str(workspace))
    adapter = adapter_for(run)
    start = adapter.launch(run, str(workspace))
    talked = talk(adapter, start, workspace, case.cues)
    print(f"  {adapter.verdict(talked.exit_code)}")
    return talked, list(start.argv)


def told(line: bytes) -> dict:
    """The line without what is long, and without lists of what a vendor's program can do."""
    said = trimmed(json.loads(line))
    update = (said.get("params") or {}).get("update") or {}
    if update.get("sessionUpdate") in UNTOLD:
        said["params"]["update"] = {"sessionUpdate": update["sessionUpdate"]}
    if isinstance(said.get("result"), dict):
        for name in ("configOptions", "models", "authMethods"):
            said["result"].pop(name, None)
        if "availableModes" in (said["result"].get("modes") or {}):
            said["result"]["modes"]["availableModes"] = []
    return said


def record(program: AcpProgram, only: set[str]) -> None:
    last = None
    with tempfile.TemporaryDirectory(dir=Path.home()) as place, ModelServer() as server:
        home = Path(place) / "home"
        for case in CASES:
            if only and case.name not in only | {"ok"}:
                continue
            session = last if case.resume == "last" else case.resume
            if case.scenario in program.waits_out:
                continue
            if case.resume == "last":
                program.pause()
            print(f"{program.name}/{case.name}")
            try:
                talked, argv = play(program, case, server, home, session)
            except AssertionError as error:
                print(f"  not recorded: {error}")
                continue
            last = next((event.data["id"] for event in talked.the("session")), last)
            if only and case.name not in only:
                continue
            about = {
                "argv": argv, "scenario": case.scenario, "prompt": case.prompt, "resumed": session, "sent": talked.sent,
                "exit_code": talked.exit_code, "left": talked.left, "stderr": talked.stderr[-STRING:],
            }  # fmt: skip
            said = [json.dumps(told(line), ensure_ascii=False) for line in talked.lines if line.startswith(b"{")]
            text = "\n".join([json.dumps(about, ensure_ascii=False), *said]) + "\n"
            places = (home.parent / "workspace", home, program.path.parents[2])
            path = HERE / "acp" / program.name / f"{case.name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(anywhere(text, *places))


if __name__ == "__main__":
    names = set(sys.argv[1:])
    for name, program in PROGRAMS.items():
        if program.there and (name in names or not names & PROGRAMS.keys()):
            record(program, names - PROGRAMS.keys())
