"""Worktrees: made once, found again, made anew when they are wrecked, by one at a time, and by nothing that a repository wants run."""

import fcntl
import os
import shutil
import signal
import time

import pytest


def test_another_attempt_finds_what_the_last_one_left(stage, repository):
    assert stage.sh("echo half > half.txt; exit 1") == 1
    repository.git("branch", "--move", "main", "elsewhere")  # nobody asks the repository again
    assert stage.sh("cat half.txt") == 0
    assert stage.said() == "half\n"


def test_work_begins_where_the_repository_is_now(stage, repository):
    assert stage.sh("true") == 0
    newest = repository.commit(new__txt="new\n")
    assert stage.sh("git rev-parse HEAD; cat new.txt", number=2) == 0
    assert stage.said() == f"{newest}\nnew\n"


def test_a_base_branch_can_be_named(stage, repository):
    repository.git("checkout", "--quiet", "-b", "release")
    repository.commit(released__txt="1\n")
    repository.git("checkout", "--quiet", "main")
    assert stage.sh("cat released.txt", base="release") == 0
    assert stage.sh("true", number=2, base="nowhere") == 125
    assert stage.failed == {
        "kind": "workspace",
        "step": "base",
        "message": f"{repository.path} has no branch 'nowhere'",
    }


@pytest.mark.rule("SW22")
@pytest.mark.parametrize("words", [{"branch": "main"}, {"branch": "release", "base": "release"}])
def test_nobody_works_on_the_branch_that_work_begins_from(stage, repository, words):
    repository.git("branch", "release")
    assert stage.sh("true", **words) == 125
    assert stage.failed["step"] == "branch" and not stage.tree().exists()


@pytest.mark.parametrize("instead", ["echo x > {}", "ln -s . {}"])
def test_a_worktree_that_an_agent_has_replaced_by_something_else_is_made_anew(stage, instead):
    assert stage.sh(f"cd ..; rm -rf {stage.tree()}; {instead.format(stage.tree())}") == 0
    assert stage.sh("cat README.md") == 0, stage.said("stderr")


def test_a_branch_that_is_known_is_gone_on_with(stage, repository):
    assert stage.sh("echo done > done.txt; git add .; git commit -qm one") == 0
    shutil.rmtree(stage.tree())
    assert stage.sh("cat done.txt", branch="leasehold/1/task", number=2) == 0, stage.said("stderr")
    repository.git("branch", "theirs")
    repository.git("checkout", "--quiet", "theirs")
    theirs = repository.commit(theirs__txt="x\n")
    repository.git("checkout", "--quiet", "main")
    assert stage.sh("git rev-parse HEAD", branch="theirs", named=True, number=3) == 0
    assert stage.said().strip() == theirs
    assert stage.changes == {"theirs.txt": "added"}, "changes are counted from where it left the base"


@pytest.mark.parametrize(
    "wreck", ["rm -rf .git; echo x > .git", "rm .git", 'rm -rf "$(git rev-parse --git-dir)"', 'rm -rf "$PWD"']
)
def test_one_that_is_wrecked_is_made_anew(stage, wreck):
    stage.sh(wreck)
    assert stage.sh("cat README.md; git status --short") == 0, stage.said("stderr")
    assert stage.said() == "read me\n"


def test_who_is_killed_in_the_middle_leaves_nothing_that_stands_in_the_way(stage, repository):
    for number in range(6):
        process = stage.begin("sh", "-c", "true", number=1 + number % 2)
        time.sleep(0.03 * (number + 1))
        os.killpg(process.pid, signal.SIGKILL)
        for pid in groups_in(stage.directory):
            os.kill(pid, signal.SIGKILL)
        process.wait(20)
    assert stage.sh("cat README.md") == 0, stage.said("stderr")
    assert stage.sh("cat README.md", number=2) == 0, stage.said("stderr")


def groups_in(directory):
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.readlink(f"/proc/{name}/cwd").startswith(str(directory)):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.rule("P50")
def test_many_at_once_have_a_worktree_each(stage):
    processes = []
    for number in range(1, 5):
        processes.append(stage.begin("sh", "-c", "pwd; git rev-parse HEAD > head.txt", number=number))
    assert [process.wait(60) for process in processes] == [0] * 4
    assert len({(stage.tree(number) / "head.txt").read_text() for number in range(1, 5)}) == 1


def test_who_waits_for_the_lock_does_so_no_longer_than_its_clock(stage):
    stage.home.mkdir(parents=True)
    with (stage.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert stage.sh("true", prepare_timeout=0.4) == 125
    assert stage.failed["kind"] == "timeout" and stage.failed["step"] == "lock"
    assert stage.sh("true") == 0, "it is free again"


@pytest.mark.parametrize("url", ["/nowhere/at/all", "https://127.0.0.1:9/x.git", "file:///etc"])
def test_a_repository_that_is_none_is_named_with_the_words_of_git(stage, url):
    assert stage.sh("true", repository=url) == 125
    assert stage.failed["kind"] == "workspace" and url in stage.failed["message"]
    assert "fatal:" in stage.failed["message"] or "unable" in stage.failed["message"]
    assert "git ls-remote" in stage.failed["message"]


@pytest.mark.parametrize("token", ["ghp_" + "t" * 36, "t" * 700, "x-access-token:" + "t" * 12])
def test_a_token_in_the_address_of_a_repository_is_in_no_message(stage, token):
    assert stage.sh("true", repository=f"https://{token}@127.0.0.1:9/x.git") == 125
    assert "https://***@127.0.0.1:9/x.git" in stage.failed["message"] and "unable" in stage.failed["message"]
    assert "tttt" not in (stage.run / "stage.json").read_text()


def test_nor_is_the_rest_of_one_whose_beginning_is_too_far_back_to_be_quoted(stage):
    prepare = [["sh", "-c", f"echo https://{'t' * 20000}@example.org/x.git is gone >&2; exit 3"]]
    assert stage.sh("true", prepare=prepare) == 125
    assert stage.failed["message"].endswith("exited with 3: is gone") and "https://***@" in stage.failed["message"]
    assert "tttt" not in stage.failed["message"]


def test_a_repository_without_a_commit_is_refused_in_words(stage, tmp_path, repository):
    repository.git("init", "--quiet", str(tmp_path / "empty"))
    assert stage.sh("true", repository=str(tmp_path / "empty")) == 125
    assert "has no commit yet" in stage.failed["message"]


def test_a_transport_that_is_a_command_is_none(stage, tmp_path):
    assert stage.sh("true", repository=f"ext::sh -c touch% {tmp_path}/owned") == 125
    assert not (tmp_path / "owned").exists()


def test_nothing_that_a_repository_or_an_earlier_agent_left_is_executed(stage, repository, tmp_path):
    owned = tmp_path / "owned"
    hook = f"#!/bin/sh\ntouch {owned}\n"
    for name in ("post-checkout", "pre-commit", "reference-transaction"):
        write_hook(repository.path / ".git" / "hooks" / name, hook)
    assert stage.sh("true") == 0
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor"):
        write_hook(stage.mirror / "hooks" / name, hook)
    repository.git("config", "core.fsmonitor", str(stage.mirror / "hooks" / "fsmonitor"), cwd=stage.mirror)
    repository.git("config", "diff.external", str(stage.mirror / "hooks" / "fsmonitor"), cwd=stage.mirror)
    repository.git("config", "core.pager", str(stage.mirror / "hooks" / "fsmonitor"), cwd=stage.mirror)
    repository.commit(more__txt="x\n")
    assert stage.sh("echo x >> README.md", number=2) == 0
    assert stage.changes == {"README.md": "modified"}
    assert not owned.exists()


@pytest.mark.parametrize("scope", ["filter.evil.smudge", "core.sshCommand", "remote.origin.uploadpack"])
def test_settings_that_an_agent_left_in_the_clone_have_us_execute_nothing(stage, repository, tmp_path, scope):
    owned = tmp_path / "owned"
    assert stage.sh(f"git config {scope} 'touch {owned}; cat'; git config user.name Me") == 0
    repository.commit(__gitattributes="* filter=evil\n")
    assert stage.sh("cat README.md; git config user.name", number=2) == 0
    assert stage.said() == "read me\nMe\n" and not owned.exists()


def test_a_repository_that_the_state_directory_lies_in_is_none_of_ours(stage, repository, tmp_path):
    stage.directory.mkdir()
    repository.git("init", "--quiet", str(stage.directory))
    assert stage.sh("rm .git; echo x > x") == 0
    assert "record_failed" in stage.report and not (stage.run / "changes.json").exists()
    assert stage.sh("ls -a") == 0 and ".git" in stage.said()


def write_hook(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_worktrees_that_nobody_needs_go_and_their_branch_stays(stage, repository):
    assert stage.sh("echo x > x.txt; git add .; git commit -qm x") == 0
    assert stage.sh("true", number=2, gone=[str(stage.tree(1))]) == 0
    assert not stage.tree(1).exists()
    assert repository.git("branch", "--list", "leasehold/1/task", cwd=stage.mirror)
