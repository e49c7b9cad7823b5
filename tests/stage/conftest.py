"""The stage's fixtures: a repository, and the program itself with a plan, as the keeper starts it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from leasehold.processes.launch import own_program
from support.repository import made


@dataclass
class Stage:
    """One run directory after the other, and the places below one state directory."""

    directory: Path
    repository: object
    environment: dict = field(default_factory=dict)
    runs: int = 0

    @property
    def home(self):
        return self.directory / "workspaces" / "digest"

    @property
    def mirror(self):
        return self.home / "mirror.git"

    def tree(self, number=1):
        return self.home / "trees" / str(number)

    def begin(self, *argv, plan=None, number=1, **words):
        """Start it; `words` go into the plan of the workspace."""
        self.runs += 1
        self.run = self.directory / "runs" / str(self.runs)
        self.run.mkdir(parents=True)
        workspace = {
            "path": str(self.tree(number)), "home": str(self.home), "repository": str(self.repository.path),
            "branch": f"leasehold/{number}/task", "prepare_timeout": 30, **words,
        }  # fmt: skip
        whole = plan if plan is not None else {"run_directory": str(self.run), "workspace": workspace}
        env = {**os.environ, **self.repository.environment, **self.environment, "LEASEHOLD_STAGE": json.dumps(whole)}
        with (self.run / "stdout").open("wb") as out, (self.run / "stderr").open("ab") as err:
            return subprocess.Popen(
                [*own_program("leasehold.stage"), *argv], env=env, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, start_new_session=True,
            )  # fmt: skip

    def sh(self, script, **words):
        """Run an agent that is a shell script to its end; its status."""
        return self.begin("sh", "-c", script, **words).wait(60)

    def python(self, script, **words):
        return self.begin(sys.executable, "-I", "-S", "-c", script, **words).wait(60)

    @property
    def report(self):
        return json.loads((self.run / "stage.json").read_text())

    @property
    def failed(self):
        return self.report.get("failed", {})

    @property
    def changes(self):
        said = json.loads((self.run / "changes.json").read_text())
        return {each["path"]: each["change_type"] for each in said["changes"]}

    @property
    def diff(self):
        return (self.run / "final.diff").read_text()

    def said(self, stream="stdout"):
        return (self.run / stream).read_text()


@pytest.fixture
def repository(tmp_path):
    return made(tmp_path / "origin")


@pytest.fixture
def stage(tmp_path, repository):
    return Stage(tmp_path / "state", repository)
