"""doctor --torture, for real, on every rung that this host gives: all caught, nothing left, and able to say otherwise."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
from leasehold.errors import LeaseholdError
from leasehold.processes.link import ask_keeper
from leasehold.stack import open_keeper_process
from leasehold.torture import run
from leasehold.torture.cases import CASES, Case, killed, survived
from leasehold.torture.observer import marked
from support.host import cmdline, pids
from support.keeper import until

pytestmark = pytest.mark.slow


def ours(word):
    return [pid for pid in pids() if word.encode() in cmdline(pid)]


def patients(place):
    """Of the doctor that works below this directory; others may be at work beside us."""
    return [
        pid for pid in ours("leasehold.torture\0") if b"/marks/" in cmdline(pid) and str(place).encode() in cmdline(pid)
    ]


@pytest.fixture
async def started(tmp_path, monkeypatch):
    """Start `leasehold doctor --torture ...` with all its files below tmp_path."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ours may be ignored, and it would be inherited
    processes = []

    async def start(*words):
        command = [sys.executable, "-m", "leasehold", "doctor", "--torture", *words]
        processes.append(await asyncio.create_subprocess_exec(*command, env=environment, stdout=-1, stderr=-1))
        return processes[-1]

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def gone(tmp_path):
    """Wait until no process names anything below tmp_path."""

    async def wait(within=40.0):
        deadline = asyncio.get_running_loop().time() + within
        while left := ours(str(tmp_path)):
            assert asyncio.get_running_loop().time() < deadline, [cmdline(pid) for pid in left]
            await asyncio.sleep(0.05)

    return wait


@pytest.mark.parametrize("rung", ["auto", "subreaper"])
async def test_everything_that_the_rung_claims_is_caught_and_nothing_is_left(started, tmp_path, rung):
    process = await started("--json", "--containment", rung)
    out, err = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, out.decode() + err.decode()
    assert b"yours are not touched" in err
    said = json.loads(out)
    assert said["ok"] and said["left_behind"] == []
    verdicts = {row["tried"]: row["verdict"] for row in said["findings"]}
    assert len(verdicts) == len(CASES)
    for case in CASES:
        if said["containment"]["rung"] in case.escapes:
            assert verdicts[case.tried] in {"ok", "not claimed", "not tried"}
        elif case.needs:
            assert verdicts[case.tried] in {"ok", "not tried"}
        else:
            assert verdicts[case.tried] == "ok", case.kind
    assert ours(str(tmp_path)) == patients(tmp_path) == [] and list(tmp_path.iterdir()) == []


@pytest.mark.rule("OW13")
async def test_the_table_is_for_eyes_and_works_in_a_database_of_its_own_on_a_given_server(started, server, dsn, sql):
    before = await sql.fetchval("select count(*) from pg_database")
    process = await started("--database-url", dsn)
    out, err = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, out.decode() + err.decode()
    for case in CASES:
        assert case.tried in out.decode()
    assert "NOT CAUGHT" not in out.decode() and "Containment here" in out.decode()
    assert await sql.fetchval("select count(*) from pg_database") == before
    assert await sql.fetchval("select count(*) from leasehold.jobs") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_however_the_doctor_ends_its_patients_end_too(started, gone, tmp_path, number):
    process = await started("--json")
    while not patients(tmp_path):
        assert process.returncode is None
        await asyncio.sleep(0.02)
    process.send_signal(number)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode != 0
    await gone()
    escapees = tuple(f"/{case.agent}".encode() for case in CASES if case.escapes and number == signal.SIGKILL)
    left = {pid: cmdline(pid).rstrip(b"\0") for pid in patients(tmp_path)}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert [mark for mark in left.values() if not mark.endswith(escapees)] == []


async def test_what_is_not_caught_is_said_with_its_story(monkeypatch):
    case = Case("nap", "nothing at all", "killed", killed)
    monkeypatch.setattr(run, "CASES", (case,))
    report = await run.torture()
    assert not report.ok and report.left_behind == []
    [finding] = report.findings
    assert (finding.verdict, finding.caught_by) == ("NOT CAUGHT", "ended succeeded ok (no message)")
    assert any("asks agent" in line for line in finding.story)


async def test_a_process_that_outlives_its_verdict_is_found_told_and_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(run.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run, "CASES", (Case("nap", "a nap", "it ends by itself", survived),))
    strays = []

    async def stray():
        while not (marks := list(tmp_path.glob("*/marks"))):
            await asyncio.sleep(0.01)
        strays.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{marks[0]}/nap"]))

    try:
        report, _ = await asyncio.gather(run.torture(), stray())
        assert not report.ok and report.findings[0].caught_by == "1 of its processes outlived its verdict"
        assert len(report.left_behind) == 1 and report.left_behind[0].startswith(f"{strays[0].pid} ")
        assert strays[0].wait(10) == -signal.SIGKILL
    finally:
        for each in strays:
            each.kill()
            each.wait()


async def test_a_private_keeper_answers_before_its_daemon_starts_which_would_else_start_one_that_stays(tmp_path):
    async with open_keeper_process(tmp_path) as process:
        assert (await ask_keeper(tmp_path / "keeper.sock"))["pid"] == process.pid


async def test_a_private_keeper_that_cannot_start_says_why(tmp_path):
    with pytest.raises(LeaseholdError, match="no-such-word"):
        async with open_keeper_process(tmp_path, "--no-such-word"):
            pass


def test_the_observer_sees_the_living_by_their_arguments_and_not_the_dead():
    word = f"observer-test-{os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", "input()", word], stdin=subprocess.PIPE) as process:
        until(lambda: (process.pid, word) in marked(word), "its arguments")
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert process.pid not in [pid for pid, _ in marked(word)]


def test_a_cgroup_that_vanishes_while_we_look_for_ours_is_no_accident(tmp_path, monkeypatch):
    ours, theirs = tmp_path / "cgroup/some/leasehold-0123456789ab", tmp_path / "cgroup/theirs"
    state = tmp_path / "torture/host"
    for directory in (ours, theirs, state):
        directory.mkdir(parents=True)
    (state / "keeper.id").write_text("0123456789abcdef")
    scandir = os.scandir

    def vanishing(path):
        if os.fspath(path) == str(theirs):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    monkeypatch.setattr(run, "CGROUPS", tmp_path / "cgroup", raising=False)
    assert run._groups(tmp_path / "torture") == [f"cgroup {ours}"]


def test_an_unknown_vice_is_refused_with_the_list():
    said = subprocess.run(
        [sys.executable, "-m", "leasehold.torture", "sing", "x"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1 and "double_fork" in said.stderr


def test_each_case_has_its_own_agent_and_its_own_words():
    assert len({case.agent for case in CASES}) == len({case.tried for case in CASES}) == len(CASES)
