"""What a run has changed is recorded as it is, committed or not, tracked or not, and within bounds."""

import json

import pytest

WORK = """
echo more >> README.md; rm old.txt; git mv main.py moved.py; echo new > 'new file.txt'; mkdir -p deep/er; echo x > deep/er/x
"""


@pytest.mark.rule("S23", "S90")
@pytest.mark.parametrize(
    "commit", ["", "git add -A; git commit -qm done", "git add -A; git commit -qm done; git checkout -q --detach"]
)
def test_every_kind_of_change_is_seen(stage, commit):
    assert stage.sh(WORK + commit) == 0, stage.said("stderr")
    assert stage.changes == {
        "README.md": "modified", "old.txt": "deleted", "moved.py": "renamed", "new file.txt": "added", "deep/er/x": "added",
    }  # fmt: skip
    whole = json.loads((stage.run / "changes.json").read_text())
    [renamed] = [each for each in whole["changes"] if each["change_type"] == "renamed"]
    assert renamed["old_path"] == "main.py"
    assert whole["dirty"] is not bool(commit) and whole["branch"] == (
        None if "detach" in commit else "leasehold/1/task"
    )


def test_the_diff_can_be_applied_to_the_base(stage, repository, tmp_path):
    assert stage.sh(WORK) == 0
    repository.git("clone", "--quiet", str(repository.path), str(tmp_path / "copy"))
    repository.git("apply", str(stage.run / "final.diff"), cwd=tmp_path / "copy")
    assert (tmp_path / "copy" / "new file.txt").read_text() == "new\n" and not (tmp_path / "copy" / "old.txt").exists()


def test_the_agents_index_is_left_as_it_is(stage, repository):
    assert stage.sh("echo a > staged; echo b > untracked; git add staged") == 0
    assert stage.changes == {"staged": "added", "untracked": "added"}
    assert repository.git("status", "--porcelain", cwd=stage.tree()) == "A  staged\n?? untracked"


def test_what_is_ignored_is_not_recorded(stage, repository):
    repository.commit(__gitignore="build/\n")
    assert stage.sh("mkdir build; echo x > build/x") == 0
    assert stage.changes == {} and stage.diff == ""


def test_a_diff_is_cut_between_lines_and_many_changes_at_their_limit(stage):
    assert (
        stage.sh(
            "seq 1 2000 > many.txt; for n in $(seq 1 30); do echo x > f$n; done", diff_limit=1000, changes_limit=10
        )
        == 0
    )
    whole = json.loads((stage.run / "changes.json").read_text())
    assert whole["diff_cut"] and whole["more"] and len(whole["changes"]) == 10
    assert 0 < len(stage.diff) <= 1000 and stage.diff.endswith("\n")


def test_recording_that_takes_too_long_costs_the_record_and_not_the_outcome(stage):
    assert stage.sh("echo x > x; exit 3", record_timeout=0) == 3
    assert "not recorded after 0 seconds" in stage.report["record_failed"] and stage.report["phase"] == "over"


def test_bytes_that_are_no_text_are_no_trouble(stage):
    assert stage.sh(r"""printf 'x\377\n' > "$(printf 'odd\377name')"; printf '\0\1\2' > binary""") == 0
    assert sorted(stage.changes.values()) == ["added", "added"]


def test_a_run_that_was_killed_has_its_changes_recorded_too(stage):
    assert stage.sh("echo x > x; kill -9 $$") == -9
    assert stage.changes == {"x": "added"}


def test_repositories_within_the_worktree_and_files_that_cannot_be_read_do_not_matter(stage):
    assert stage.sh("git init -q inner; echo x > inner/y; echo z > z; mkfifo pipe; ln -s /nowhere dangling") == 0
    assert {"z": "added", "dangling": "added"}.items() <= stage.changes.items()
