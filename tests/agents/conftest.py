"""The real programs, the scripted model, and agents' rows that use both."""

import json
import os
import subprocess

import pytest
from agents.programs import CLAUDE, CODEX, CODEX_APP
from agents.server import ModelServer
from support.fixtures import agent, ends, host, host_at, insert

__all__ = ["agent", "ends", "host", "host_at", "insert"]


@pytest.fixture
def model():
    with ModelServer() as server:
        yield server


@pytest.fixture
def repository(tmp_path):
    """A real one, with one commit."""
    place = tmp_path / "repository"
    place.mkdir()
    (place / "README").write_text("here\n")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", place, *words], check=True)
    return place


@pytest.fixture
def present():
    """A test of a real program is skipped where it is not, and says so; where it must be, it fails."""

    def check(program):
        if not program.there:
            absent = f"{program.adapter} is not installed: its transcripts are replayed, nothing real is shown (make test-agents)"
            if os.environ.get("LEASEHOLD_REAL_AGENTS"):
                pytest.fail(absent)
            pytest.skip(absent)
        return program

    return check


@pytest.fixture(params=[CODEX_APP, CODEX, CLAUDE], ids=lambda program: program.adapter)
def program(request, present):
    return present(request.param)


@pytest.fixture
def real(program, agent, model, repository, tmp_path):
    """The row of a real agent that talks to the scripted model in one of its scenarios."""

    async def make(scenario="ok", options=program.options, **columns):
        env = program.configure(tmp_path / f"home-of-{program.adapter}", model.url(scenario))
        return await agent(
            program.adapter, "", adapter=program.adapter, command=[str(program.path), *options],
            env=json.dumps(env), workspace=str(repository), **columns,
        )  # fmt: skip

    return make
