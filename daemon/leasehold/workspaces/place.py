"""Where one run works, and how its agent is started there. Pure; if it fails, one run fails."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leasehold.models import Command, Run, Verdict
from leasehold.processes.launch import own_program

VARIABLE = "LEASEHOLD_STAGE"
PART = 30 << 10
"""Characters of the plan in one variable, the rest of it in LEASEHOLD_STAGE_1 and so on: Linux starts nothing with one of 128 KiB."""
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "refused": ("failed", "workspace_failed"),
    "busy": ("interrupted", "workspace_busy"),
}
"""What becomes of a run that gets no workspace."""


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is the agent's working directory. With a plan a stage makes it ready first."""

    path: str
    source: str
    cwd: str | None = None  # where the keeper starts it; None: the run's own directory
    plan: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def staged(self) -> bool:
        """Is there anything to make ready?"""
        return self.plan is not None or self.config is not None

    @property
    def patience(self) -> float:
        """Seconds that making it ready may take."""
        waits = ((self.config or {}).get("credential") or {}).get("wait", 0.0)
        return float((self.plan or {}).get("prepare_timeout", 600.0)) + float(waits)

    @property
    def returning(self) -> float:
        """Seconds that it may wait until it can bring back a credential of which its agent had a copy."""
        credential = (self.config or {}).get("credential") or {}
        return float(credential.get("wait", 0.0)) if credential.get("hold") == "copy" else 0.0

    @property
    def env_file(self) -> str:
        """What is written into its tree for its agent to read."""
        return str(((self.plan or {}).get("env_file") or {}).get("text", ""))

    @property
    def address(self) -> str:
        """Where its repository is; whoever wrote that may have written a token into it."""
        return str(self.facts.get("repository") or "")

    @property
    def variables(self) -> dict[str, str]:
        """What its agent is told of it."""
        named = {
            "REPOSITORY": self.facts.get("repository"), "BRANCH": self.facts.get("branch"), "BASE_BRANCH": self.facts.get("base"),
        }  # fmt: skip
        told = {"LEASEHOLD_WORKSPACE": self.path, "LEASEHOLD_WORKSPACE_SOURCE": self.source}
        return told | {f"LEASEHOLD_{name}": str(value) for name, value in named.items() if value}

    def dressed(self, command: Command, run_directory: Path) -> Command:
        """The same command as the stage starts it, if there is anything to make ready; its words stay its own arguments."""
        env = {**command.env, **self.variables}
        if not self.staged:
            return replace(command, env=env)
        plan = {"run_directory": str(run_directory), "workspace": self.plan, "config": self.config}
        said = json.dumps(plan, ensure_ascii=False)
        parts = [said[at : at + PART] for at in range(0, len(said), PART)]
        env |= {f"{VARIABLE}_{number}" if number else VARIABLE: part for number, part in enumerate(parts)}
        return replace(command, argv=(*own_program("leasehold.stage"), *command.argv), env=env)


def own_place(run: Run, run_directory: Path) -> Place:
    """Where its agent's row says, else a directory of the run's own."""
    if run.workspace is not None:
        return Place(run.workspace, "agent_directory", cwd=run.workspace)
    return Place(str(run_directory / "workspace"), "run")


def taken_place(said: Mapping[str, Any], run: Run, state_dir: Path, run_directory: Path) -> Place:
    """What the database has given the run."""
    kind = said["kind"]
    if kind == "none":
        return own_place(run, run_directory)
    if kind in OUTCOMES:
        outcome, reason = OUTCOMES[kind]
        return replace(own_place(run, run_directory), verdict=Verdict(outcome, reason, said["message"]))  # type: ignore[arg-type]
    path = str(state_dir / said["path"])
    gone = [str(state_dir / each) for each in said["gone"]]
    if kind == "session":
        return Place(path, said["source"], plan={"path": path, "fresh": True, "gone": gone})
    asked = ("repository", "branch", "named", "base", "prepare", "prepare_timeout", "env_file")
    plan = {
        **{name: said[name] for name in asked},
        "path": path,
        "home": str(state_dir / said["home"]),
        "gone": gone,
    }
    return Place(path, said["source"], plan=plan, facts=said)
