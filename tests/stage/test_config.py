"""A run's own configuration directory and the credential lent into it: the real stage, real agents, killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROTATING = [sys.executable, str(Path(__file__).with_name("rotating.py"))]
PRINT = [sys.executable, "-c", "import os; print(os.environ['CODEX_HOME'])"]


class House:
    """A state directory, a credential, the server that it is for, and runs that were started here."""

    def __init__(self, directory):
        self.state = directory / "state"
        self.home = directory / "agent" / ".codex"
        self.home.mkdir(parents=True)
        self.state.mkdir()
        self.credential = self.home / "auth.json"
        self.server = directory / "server"
        self.server.write_text("1")
        self.login(1)
        self.runs = 0
        self.started = []

    def login(self, token):
        self.credential.write_text(json.dumps({"token": token}))

    @property
    def token(self):
        return json.loads(self.credential.read_text())["token"]

    def private(self, conversation):
        return self.state / "sessions" / str(conversation)

    def start(self, argv, conversation=1, *, files=None, credential=True, **loan):
        self.runs += 1
        run = self.state / "runs" / str(self.runs)
        run.mkdir(parents=True)
        lent = {
            "path": str(self.credential),
            "name": "auth.json",
            "locks": str(self.state / "locks"),
            "hold": "run",
            "wait": 30,
        }
        config = {
            "dir": str(self.private(conversation)), "env": {"CODEX_HOME": "{dir}"}, "files": files or {},
            "credential": {**lent, **loan} if credential else None,
        }  # fmt: skip
        plan = {
            "argv": [str(word) for word in argv],
            "run_directory": str(run),
            "workspace": {"path": str(run)},
            "config": config,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "leasehold.stage"], env={**os.environ, "LEASEHOLD_STAGE": json.dumps(plan)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        process.directory = run
        self.started.append(process)
        return process

    def rotate(self, conversation=1, uses=3, *then, **loan):
        return self.start([*ROTATING, self.server, uses, *then], conversation, **loan)


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    for process in house.started:
        if process.returncode is None:
            kill(process)


def kill(process):
    """The whole tree at once, as the keeper does it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def failure(process):
    return json.loads((process.directory / "stage.json").read_text())["failed"]["kind"]


def wait_for(path):
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def test_the_directory_has_its_files_for_one_user_and_stays(house):
    code, out, err = ended(
        house.start(PRINT, 7, files={"config.toml": "model = 1\n", "deep/er/x.json": "{}"}, credential=False)
    )
    assert (code, out) == (0, f"{house.private(7)}\n"), err
    assert (house.private(7) / "deep/er/x.json").read_text() == "{}"
    assert (house.private(7) / "config.toml").stat().st_mode & 0o777 == 0o600
    assert house.private(7).stat().st_mode & 0o007 == 0


def test_what_an_agent_has_shut_can_be_removed_by_the_daemon_and_nothing_outside_is_touched(house, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    shut = "import os; h = os.environ['CODEX_HOME']; os.makedirs(h + '/a/b', 0o700); os.chmod(h + '/a', 0o700); os.symlink(os.sys.argv[1], h + '/a/link')"
    code, _, err = ended(house.start([sys.executable, "-c", shut, outside]))
    assert code == 0, err
    assert [(house.private(1) / name).stat().st_mode & 0o070 for name in ("a", "a/b")] == [0o070, 0o070]
    assert outside.stat().st_mode & 0o777 == 0o700


def test_a_link_that_an_agent_left_is_replaced_not_followed(house, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    house.private(1).mkdir(parents=True)
    (house.private(1) / "config.toml").symlink_to(outside)
    (house.private(1) / "auth.json").symlink_to(outside)
    code, _, err = ended(house.start(PRINT, files={"config.toml": "ours"}))
    assert code == 0, err
    assert outside.read_text() == "mine" and not (house.private(1) / "config.toml").is_symlink()


@pytest.mark.parametrize("where", ["the directory", "below it"])
def test_no_directory_is_reached_through_a_link(house, tmp_path, where):
    (tmp_path / "elsewhere").mkdir()
    link = house.private(1) if where == "the directory" else house.private(1) / "deep"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    process = house.start(PRINT, files={"deep/config.toml": "ours"}, credential=False)
    assert ended(process)[:2] == (125, "")
    assert failure(process) == "config" and not list((tmp_path / "elsewhere").iterdir())


def test_two_runs_at_once_use_one_rotating_credential_and_nobody_is_logged_out(house):
    runs = [house.rotate(conversation, 5) for conversation in (1, 2, 1, 3)]
    for run in runs:
        code, _, err = ended(run)
        assert code == 0, err
    assert house.token == json.loads(house.server.read_text()) == 21
    assert not list(house.state.glob("sessions/*/auth.json")), "no copy stays in what a session keeps"
    assert house.credential.stat().st_mode & 0o777 == 0o600


def test_who_waits_too_long_is_told_that_it_is_busy_and_its_agent_never_starts(house, tmp_path):
    holder = house.rotate(1, 1, tmp_path / "has-it", tmp_path / "may-go")
    wait_for(tmp_path / "has-it")
    late = house.rotate(2, 1, wait=0.3)
    code, out, err = ended(late)
    assert (code, out, failure(late)) == (125, "", "busy") and "another run has had" in err
    (tmp_path / "may-go").touch()
    assert ended(holder)[0] == 0
    assert ended(house.rotate(2, 1, wait=0.3))[0] == 0


def test_who_is_stopped_while_it_waits_leaves(house, tmp_path):
    house.rotate(1, 1, tmp_path / "has-it", tmp_path / "never")
    wait_for(tmp_path / "has-it")
    waiting = house.rotate(2, 1)
    wait_for(waiting.directory / "stage.json")
    waiting.terminate()
    assert ended(waiting)[0] == -signal.SIGTERM


def test_what_a_killed_run_had_renewed_is_taken_back_by_the_next(house, tmp_path):
    doomed = house.rotate(1, 3, tmp_path / "renewed", tmp_path / "never")
    wait_for(tmp_path / "renewed")
    kill(doomed)
    assert house.token == 1, "it was killed before it could bring it back"
    code, _, err = ended(house.rotate(2, 2))
    assert code == 0, err
    assert house.token == 6 and not (house.private(1) / "auth.json").exists()


def test_half_a_credential_is_not_brought_back(house, tmp_path):
    doomed = house.rotate(1, 0, "--half", tmp_path / "half")
    wait_for(tmp_path / "half")
    kill(doomed)
    code, _, err = ended(house.rotate(2, 1))
    assert code == 0 and "broken copy" in err
    assert house.token == 2


@pytest.mark.parametrize(("later", "kept"), [("theirs", 90), ("the agent's", 2)])
def test_of_two_changes_the_later_one_is_kept_and_said(house, tmp_path, later, kept):
    holder = house.rotate(1, 1, tmp_path / "renewed", tmp_path / "may-go")
    wait_for(tmp_path / "renewed")
    house.login(90)
    shift = 60 if later == "theirs" else -60
    moment = time.time() + shift
    os.utime(house.credential, (moment, moment))
    (tmp_path / "may-go").touch()
    code, _, err = ended(holder)
    assert code == 0 and "by somebody else" in err
    assert house.token == kept


def test_many_may_have_a_copy_of_what_does_not_rotate(house, tmp_path):
    waits = [sys.executable, "-c", "import sys, time, pathlib; pathlib.Path(sys.argv[1]).touch()\nwhile not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"]  # fmt: skip
    runs = [house.start([*waits, tmp_path / f"here-{n}", tmp_path / "may-go"], n, hold="copy") for n in (1, 2, 3)]
    for n in (1, 2, 3):
        wait_for(tmp_path / f"here-{n}")
    (tmp_path / "may-go").touch()
    assert [ended(run)[0] for run in runs] == [0, 0, 0]
    assert house.token == 1 and not list(house.state.glob("sessions/*/auth.json"))


def test_a_credential_that_is_not_there_is_a_missing_login(house):
    house.credential.unlink()
    process = house.start(PRINT)
    assert ended(process)[:2] == (125, "") and failure(process) == "auth"


def test_a_credential_behind_a_link_has_the_lock_of_what_it_points_at(house, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(house.credential)
    holder = house.rotate(1, 1, tmp_path / "has-it", tmp_path / "may-go")
    wait_for(tmp_path / "has-it")
    late = house.rotate(2, 1, path=str(link), wait=0.2)
    assert ended(late)[0] == 125 and failure(late) == "busy"
    (tmp_path / "may-go").touch()
    assert ended(holder)[0] == 0
    assert ended(house.rotate(2, 1, path=str(link)))[0] == 0
    assert link.is_symlink() and house.token == 3


def test_an_agent_that_removes_its_copy_removes_nobodys_login(house):
    code, _, err = ended(
        house.start([sys.executable, "-c", "import os; os.unlink(os.environ['CODEX_HOME'] + '/auth.json')"])
    )
    assert code == 0 and "stays as it was" in err
    assert house.token == 1
