"""A clone that is wrecked is made whole, or anew, by the next run: never under somebody who works in it, and without losing what can be read."""

import os
import shutil
import signal
import subprocess
import time

import pytest

WRECKS = {
    "its objects are gone": "rm -rf objects",
    "its objects are empty": "find objects -type f -exec truncate -s 0 {} +",
    "HEAD is empty": ": > HEAD",
    "HEAD is gone": "rm HEAD",
    "HEAD is zeros": "head -c 41 /dev/zero > HEAD",
    "its settings are garbage": "echo '[core' > config",
    "its settings are gone": "rm config",
    "its refs are gone": "rm -rf refs packed-refs",
    "it is empty": "rm -rf ./*",
    "it is a file": "cd ..; rm -rf mirror.git; echo x > mirror.git",
    "it leads nowhere": "cd ..; rm -rf mirror.git; ln -s nowhere mirror.git",
}
COMMIT = "echo done > done.txt; git add .; git commit -qm one"


def wreck(stage, how):
    subprocess.run(["sh", "-c", how], cwd=stage.mirror, check=True)


@pytest.mark.parametrize("how", WRECKS)
def test_a_clone_that_is_wrecked_is_none_for_one_run_and_not_for_ever(stage, repository, how):
    assert stage.sh("true") == 0
    newest = repository.commit(new__txt="new\n")
    wreck(stage, WRECKS[how])
    assert stage.sh("cat new.txt; git rev-parse HEAD", number=2) == 0, stage.said("stderr")
    assert stage.said() == f"new\n{newest}\n"
    assert "is wrecked" in stage.said("stderr")
    assert stage.sh("git status --short", number=1) == 0 and "record_failed" not in stage.report
    assert stage.sh("true", number=3) == 0 and stage.said("stderr") == "", "once, and not each time"


@pytest.mark.parametrize("how", ["HEAD is empty", "its settings are garbage", "HEAD is zeros"])
def test_where_little_is_missing_nothing_is_lost(stage, how):
    assert stage.sh(f"{COMMIT}; echo half > half.txt") == 0
    wreck(stage, WRECKS[how])
    assert stage.sh("cat done.txt half.txt") == 0, stage.said("stderr")
    assert stage.said() == "done\nhalf\n"


def test_branches_that_can_still_be_read_come_along(stage, repository):
    assert stage.sh(COMMIT) == 0
    shutil.rmtree(stage.tree())
    wreck(
        stage,
        "git update-ref refs/remotes/origin/other $(git rev-parse HEAD) || true; echo x > refs/remotes/origin/other",
    )
    repository.git("branch", "other")
    assert stage.sh("cat done.txt", branch="leasehold/1/task", number=2) == 0, stage.said("stderr")
    assert stage.said() == "done\n"


def test_what_is_replaced_is_still_there_aside(stage):
    assert stage.sh("echo half > half.txt") == 0
    wreck(stage, "rm -rf objects; echo x > mine")
    assert stage.sh("true", number=2) == 0
    aside = stage.home / "mirror.git.wrecked"
    assert (aside / "mine").read_text() == "x\n" and str(aside) in stage.said("stderr")
    assert (aside / "trees" / "1" / "half.txt").read_text() == "half\n"
    wreck(stage, "rm -rf objects; echo y > mine")
    assert stage.sh("true", number=3) == 0
    assert (aside / "mine").read_text() == "y\n", "one is enough"


def test_while_another_run_works_in_it_it_stays_and_the_words_say_what_to_do(stage):
    other = stage.begin("sh", "-c", "touch ../here; sleep 60")
    try:
        while not (stage.home / "trees" / "here").exists():
            assert other.poll() is None
            time.sleep(0.02)
        wreck(stage, "rm -rf objects")
        assert stage.sh("true", number=2) == 125
        failed = stage.failed
        assert failed["kind"] == "workspace" and f"remove {stage.mirror} when they have ended" in failed["message"]
        assert not (stage.home / "mirror.git.wrecked").exists()
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait(20)
    assert stage.sh("true", number=2) == 0, stage.said("stderr")


def test_what_cannot_be_had_anew_is_not_thrown_away(stage, repository):
    assert stage.sh("true") == 0
    wreck(stage, "rm HEAD; rm -rf objects; echo x > mine")
    repository.path.rename(repository.path.with_name("moved"))
    assert stage.sh("true", number=2) == 125
    assert stage.failed["step"] == "look" and (stage.mirror / "mine").exists()


def test_a_failure_that_is_none_of_the_clones_leaves_it_alone(stage):
    assert stage.sh("true") == 0
    before = stage.mirror.stat().st_ino
    assert stage.sh("true", number=2, base="nowhere") == 125 and stage.failed["step"] == "base"
    stage.home.joinpath("trees").rename(stage.home / "away")
    stage.home.joinpath("trees").write_text("no directory")
    assert stage.sh("true", number=3) == 125
    assert stage.mirror.stat().st_ino == before and not (stage.home / "mirror.git.wrecked").exists()


@pytest.mark.parametrize(
    "left", ["mkdir -p mirror.git.new/objects", "echo x > mirror.git.new", "ln -s nowhere mirror.git.new"]
)
def test_half_of_a_first_clone_stands_in_nobodys_way(stage, left):
    stage.home.mkdir(parents=True)
    subprocess.run(["sh", "-c", left], cwd=stage.home, check=True)
    assert stage.sh("cat README.md") == 0, stage.said("stderr")
