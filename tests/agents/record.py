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
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.cases import CLAUDE_CASES, COMMON, Case
from agents.cases_codex import CODEX_CASES
from agents.programs import CLAUDE, CODEX, CODEX_APP, Program
from agents.runs import run_of
from agents.server import ModelServer
from agents.talk import Talked, converse
from leasehold.agents.base import Conversing
from leasehold.agents.registry import adapter_for
from leasehold.models import Command, Run, RunKey

HERE = Path(__file__).parent / "transcripts"
STRING, LIST = 200, 4
"""What is longer is cut."""
INIT = ("type", "subtype", "cwd", "session_id", "model", "permissionMode", "claude_code_version", "uuid")
"""What is kept of the long list of things that Claude Code can do."""
PATIENCE = 90


CASES = {
    "codex": (CODEX_APP, CODEX_CASES),
    "codex_exec": (CODEX, (
        *COMMON,
        Case("interrupted", prompt="run: python3 -c 'import time; time.sleep(60)'", interrupt=True),
        Case("read_only", prompt="run: touch y\nsay: Done.", options=("-s", "read-only")),
    )),
    "claude": (CLAUDE, CLAUDE_CASES),
}  # fmt: skip


def trimmed(said: Any) -> Any:
    """The same, without what is long."""
    if isinstance(said, str):
        return said if len(said) <= STRING else f"{said[:STRING]}… ({len(said)} characters)"
    if isinstance(said, list):
        return [trimmed(each) for each in said[:LIST]]
    if isinstance(said, dict):
        long = said.get("subtype") == "init" or "commands" in said
        return {name: trimmed(each) for name, each in said.items() if not long or name in INIT}
    return said


def anywhere(text: str, *places: Path) -> str:
    """Without the paths, the port and the user of whoever recorded it."""
    for number, place in enumerate(places):
        text = text.replace(str(place), ("/workspace", "/home/agent", "/program")[number])
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text)


def play(program: Program, case: Case, server: ModelServer, home: Path, run: Run) -> tuple[list[str], str, int, Talked]:
    """Run it. Answers its argv, stderr, exit code, and what it said."""
    workspace = home.parent / "workspace"
    workspace.mkdir(exist_ok=True)
    if not (workspace / ".git").exists():
        subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    adapter = adapter_for(run)
    start = adapter.launch(run, str(workspace))
    with (home.parent / "stderr").open("w+b") as err:
        process = subprocess.Popen(
            start.argv, cwd=workspace, env={"PATH": os.environ["PATH"], **start.env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, start_new_session=True,
        )  # fmt: skip
        if isinstance(adapter, Conversing):
            talked = converse(process, adapter, case.cues, PATIENCE)
        else:
            talked = Talked(listen(process, start, interrupt=case.interrupt))
        err.seek(0)
        said = err.read().decode()
    argv = [anywhere(word, workspace, home, program.path) for word in start.argv]
    return argv, anywhere(said, workspace, home, program.path), process.returncode, talked


def listen(process: "subprocess.Popen[bytes]", start: Command, *, interrupt: bool) -> list[str]:
    """To a program that hears its prompt and nothing else."""
    if interrupt:
        process.stdin.write(start.stdin)
        process.stdin.close()
        process.stdin = None
        time.sleep(6)  # nobody else reads its stdout; a recording may take its time
        process.send_signal(signal.SIGINT)
        start = replace(start, stdin=None)
    out, _ = process.communicate(start.stdin, timeout=PATIENCE)
    return out.decode().splitlines()


def record(folder: str, only: set[str]) -> None:
    program, cases = CASES[folder]
    last = None
    with tempfile.TemporaryDirectory(dir=Path.home()) as place, ModelServer() as server:
        home = Path(place) / "home"
        for number, case in enumerate(cases, 1):
            if only and case.name not in only | {"ok"}:
                continue
            session = last if case.resume == "last" else case.resume
            options = program.options if case.options is None else case.options
            env = {**program.configure(home, server.url(case.scenario)), **dict(case.env)}
            run = run_of(
                program.adapter, (str(program.path), *options), prompt=case.prompt, env=env, session=session,
                key=RunKey(number, UUID(int=number)),
            )  # fmt: skip
            argv, err, code, talked = play(program, case, server, home, run)
            about = {
                "argv": argv,
                "scenario": case.scenario,
                "prompt": case.prompt,
                "resumed": session,
                "exit_code": code,
                "run": number,
                "sent": talked.sent,
            }
            lines = talked.lines
            last = next(
                (
                    found[1]
                    for line in lines
                    if (found := re.search(r'"(?:thread_id|session_id|sessionId)":"([^"]+)"', line))
                ),
                last,
            )
            if case.name != "ok" or not only or "ok" in only:
                said = [
                    json.dumps(trimmed(json.loads(line)), ensure_ascii=False) for line in lines if line.startswith("{")
                ]
                assert len(said) == len(lines) or not talked.sent
                text = anywhere("".join(f"{line}\n" for line in said), home.parent / "workspace", home, program.path)
                path = HERE / folder / f"{case.name}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**about, "stderr": err[-STRING:]}, ensure_ascii=False) + "\n" + text)
            print(f"{folder}/{case.name}: exit code {code}, {len(lines)} lines")


if __name__ == "__main__":
    names = set(sys.argv[1:])  # of folders, of cases; none: all of them
    for folder in names & {*CASES} or CASES:
        record(folder, names - {*CASES})
