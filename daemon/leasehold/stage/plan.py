"""What a stage is asked to do: the plan in its environment, and the agent's words in its arguments. If it fails, one run fails."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leasehold.stage.words import StageError

VARIABLE = "LEASEHOLD_STAGE"


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A file of settings for the programs of a repository: where in it, and what it says."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the agent works. With a `repository` it is a worktree of it, and `home` is what its worktrees share."""

    path: str
    fresh: bool = False  # a plain directory that may have to be made
    repository: str | None = None
    home: str | None = None
    branch: str | None = None
    named: bool = False  # somebody asked for this very branch
    base: str | None = None
    prepare: tuple[tuple[str, ...], ...] = ()
    prepare_timeout: float = 600.0
    record_timeout: float = 20.0
    diff_limit: int = 1 << 20
    changes_limit: int = 1000
    env_file: EnvFile | None = None
    gone: tuple[str, ...] = ()  # directories beside it that nobody needs


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    argv: tuple[str, ...]
    run_directory: Path
    workspace: Workspace | None = None
    config: Mapping[str, object] | None = field(default=None)


def parts(environment: Mapping[str, str]) -> list[str]:
    """The variables that the plan is in, in order."""
    names = [VARIABLE]
    while (more := f"{VARIABLE}_{len(names)}") in environment:
        names.append(more)
    return names


def read_plan(environment: Mapping[str, str], argv: list[str]) -> Plan:
    """Raises StageError."""
    try:
        said = json.loads("".join(environment[name] for name in parts(environment)))
        return Plan(
            argv=tuple(said.get("argv") or argv),
            run_directory=Path(said["run_directory"]),
            workspace=_workspace(said["workspace"]) if said.get("workspace") else None,
            config=said.get("config"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StageError("workspace", "plan", f"the plan cannot be read: {error!r}") from error


def _workspace(said: Mapping[str, object]) -> Workspace:
    words = dict(said)
    if isinstance(prepare := words.pop("prepare", None), list):
        words["prepare"] = tuple(tuple(command) for command in prepare)
    if isinstance(gone := words.pop("gone", None), list):
        words["gone"] = tuple(gone)
    if isinstance(env_file := words.pop("env_file", None), dict):
        words["env_file"] = EnvFile(**env_file)
    return Workspace(**words)  # type: ignore[arg-type]  # a word that is wrong raises TypeError, or fails where it is used
