"""The demo, as a newcomer runs it."""

import asyncio
import os
import sys

from leasehold.runs.lock import only_one
from support.host import cmdline, pids


async def test_the_demo_shows_everything_and_leaves_nothing_twice(tmp_path):
    state, checkout = tmp_path / "state", tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "file").write_text("a line\n" * 3)
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leasehold", "demo", "--state-dir", str(state), "--checkout", str(checkout),
            stdout=-1, stderr=-1, env={name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")},
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, out.decode() + err.decode()
        for words in (
            b"INSERT INTO leasehold.jobs",
            b"leasehold.cancel(",
            b"run_settled",
            b"third time lucky",
            b"1 files, 3 lines",
        ):
            assert words in out
        assert not [pid for pid in pids() if str(state).encode() in cmdline(pid)]
    assert [path.name for path in checkout.iterdir()] == ["file"]


async def test_a_second_demo_in_the_same_directory_is_refused_and_touches_nothing(tmp_path):
    state = tmp_path / "state"
    (state / "runs").mkdir(parents=True)
    with only_one(state / "demo.lock", "this test is at work"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "leasehold", "demo", "--state-dir", str(state), stdout=-1, stderr=-1
        )
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"another demo runs in" in err and b"--state-dir" in err
    assert (state / "runs").exists()
