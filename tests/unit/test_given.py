"""The credential that a run is lent is looked through if it is a file that we may read, and nothing is left open."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from agents.runs import run_of
from leasehold.runs import given

KEY = "sk-abcabcabd-0123"
RUN = run_of("command")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("what", ["a directory", "a pipe", "a device", "nothing", "no path"])
async def test_what_is_no_file_has_no_secrets_and_leaves_nothing_open(tmp_path, what):
    path = {"a device": "/dev/zero", "no path": "a\0b"}.get(what, str(tmp_path / "it"))
    if what == "a directory":
        (tmp_path / "it").mkdir()
    if what == "a pipe":
        os.mkfifo(path)
    before = descriptors()
    for _ in range(20):
        assert (await given.with_secrets(replace(RUN, credential=path))).secrets == set()
    assert descriptors() <= before + 3  # a thread of the loop, not one for each


async def test_a_credential_and_settings_tell_their_secrets(tmp_path):
    (tmp_path / "auth.json").write_text(json.dumps({"access_token": KEY}))
    run = replace(RUN, credential=str(tmp_path / "auth.json"), config_files={"a.toml": f'token = "{KEY}-text"'})
    assert (await given.with_secrets(run, f"KEY={KEY}-file")).secrets == {KEY, f"{KEY}-text", f"{KEY}-file"}


async def test_a_file_system_that_does_not_answer_holds_no_run_up(tmp_path, monkeypatch):
    monkeypatch.setattr(given, "PATIENCE", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(given, "_read", lambda path: Path(path).read_text())  # until somebody writes
    run = await given.with_secrets(replace(RUN, credential=str(pipe), config_files={"a": f"KEY={KEY}"}))
    assert run.secrets == {KEY}
    pipe.open("w").close()
