"""Record what the real agents say: `make record`. Each case runs the program as its adapter would, against the scripted model.

A transcript's first line is about the recording (argv, exit code, end of stderr), the others are the program's stdout, trimmed:
long strings and long lists are cut, so that no vendor's prompt or description of a tool is kept here.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.programs import CLAUDE, CODEX, Program
from agents.runs import run_of
from agents.server import ModelServer
from leasehold.agents.registry import adapter_for

HERE = Path(__file__).parent / "transcripts"
STRING, LIST = 200, 4
"""What is longer is cut."""
INIT = ("type", "subtype", "cwd", "session_id", "model", "permissionMode", "claude_code_version", "uuid")
"""What is kept of the long list of things that Claude Code can do."""
PATIENCE = 90
PROOF = "run: echo hello > proof.txt\nsay: The proof is written."


@dataclass(frozen=True)
class Case:
    """One recording. `resume`: 'last' is the session of the case before; `more`: options beside the program's own."""

    name: str
    scenario: str = "ok"
    prompt: str = PROOF
    resume: str | None = None
    options: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    interrupt: bool = False


NOBODY = "00000000-0000-4000-8000-000000000000"
COMMON = (
    Case("ok"),
    Case("resume", prompt="run: cat proof.txt\nsay: It says hello.", resume="last"),
    Case("resume_unknown", resume=NOBODY),
    Case("tool_fails", prompt="run: exit 3\nsay: It did not work."),
    Case("says_nothing", prompt="say: "),
    Case("interrupted", prompt="run: python3 -c 'import time; time.sleep(60)'", interrupt=True),
    *(
        Case(name, name)
        for name in ("400", "401", "403", "429", "429once", "500", "quota", "overflow", "drop", "garbage")
    ),
)
CASES = {
    "codex_exec": (CODEX, (*COMMON, Case("read_only", prompt="run: touch y\nsay: Done.", options=("-s", "read-only")))),
    "claude": (
        CLAUDE,
        (
            *COMMON,
            Case("denied", options=()),
            Case("401_for_long", "401", env=(("CLAUDE_CODE_MAX_RETRIES", "5"),)),
            Case("max_turns", prompt="run: true\nrun: true\nrun: true", options=("--allowedTools", "Bash", "--max-turns", "1")),
            Case("budget", options=("--allowedTools", "Bash", "--max-budget-usd", "0.001")),
        ),
    ),
}  # fmt: skip


def trimmed(said: Any) -> Any:
    """The same, without what is long."""
    if isinstance(said, str):
        return said if len(said) <= STRING else f"{said[:STRING]}… ({len(said)} characters)"
    if isinstance(said, list):
        return [trimmed(each) for each in said[:LIST]]
    if isinstance(said, dict):
        return {name: trimmed(each) for name, each in said.items() if said.get("subtype") != "init" or name in INIT}
    return said


def anywhere(text: str, *places: Path) -> str:
    """Without the paths, the port and the user of whoever recorded it."""
    for number, place in enumerate(places):
        text = text.replace(str(place), ("/workspace", "/home/agent", "/program")[number])
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text)


def play(
    program: Program, case: Case, server: ModelServer, home: Path, session: str | None
) -> tuple[list[str], str, int, list[str]]:
    """Run it. Answers its argv, stdout lines, exit code and stderr."""
    workspace = home.parent / "workspace"
    workspace.mkdir(exist_ok=True)
    if not (workspace / ".git").exists():
        subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    options = program.options if case.options is None else case.options
    env = {**program.configure(home, server.url(case.scenario)), **dict(case.env)}
    run = run_of(program.adapter, (str(program.path), *options), prompt=case.prompt, env=env, session=session)
    start = adapter_for(run).launch(run, str(workspace))
    process = subprocess.Popen(
        start.argv, cwd=workspace, env={"PATH": os.environ["PATH"], **start.env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    if case.interrupt:
        process.stdin.write(start.stdin)
        process.stdin.close()
        process.stdin = None
        time.sleep(6)  # nobody else reads its stdout; a recording may take its time
        process.send_signal(signal.SIGINT)
        start = replace(start, stdin=None)
    out, err = process.communicate(start.stdin, timeout=PATIENCE)
    argv = [anywhere(word, workspace, home, program.path) for word in start.argv]
    return argv, anywhere(err.decode(), workspace, home, program.path), process.returncode, out.decode().splitlines()


def record(folder: str, only: set[str]) -> None:
    program, cases = CASES[folder]
    last = None
    with tempfile.TemporaryDirectory(dir=Path.home()) as place, ModelServer() as server:
        home = Path(place) / "home"
        for case in cases:
            if only and case.name not in only | {"ok"}:
                continue
            session = last if case.resume == "last" else case.resume
            argv, err, code, lines = play(program, case, server, home, session)
            about = {
                "argv": argv,
                "scenario": case.scenario,
                "prompt": case.prompt,
                "resumed": session,
                "exit_code": code,
            }
            last = next(
                (found[1] for line in lines if (found := re.search(r'"(?:thread|session)_id":"([^"]+)"', line))), last
            )
            if case.name != "ok" or not only or "ok" in only:
                said = [
                    json.dumps(trimmed(json.loads(line)), ensure_ascii=False) for line in lines if line.startswith("{")
                ]
                text = anywhere("".join(f"{line}\n" for line in said), home.parent / "workspace", home, program.path)
                path = HERE / folder / f"{case.name}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**about, "stderr": err[-STRING:]}, ensure_ascii=False) + "\n" + text)
            print(f"{folder}/{case.name}: exit code {code}, {len(lines)} lines")


if __name__ == "__main__":
    for folder in CASES:
        record(folder, set(sys.argv[1:]))
