"""Paths that an agent names: inside its workspace and out of the repository's own folder, or none."""

import json

import pytest
from leasehold.workspaces.paths import normalise, normalise_all
from leasehold.workspaces.report import read_changes, read_staged


@pytest.mark.rule("S114")
@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("a", "a"),
        ("./a", "a"),
        ("././a//b/", "a/b"),
        (" a b ", "a b"),
        (".github/x", ".github/x"),
        (".gitignore", ".gitignore"),
        ("a/..b", "a/..b"),
    ],
)
def test_what_lies_inside_is_one_plain_path(path, clean):
    assert normalise(path) == clean


@pytest.mark.rule("S114", "SW20", "SW21")
@pytest.mark.parametrize(
    "path",
    ["", "  ", ".", "./", "/a", "..", "a/../b", "a\0b", ".git", ".git/config", "./.git", "./.git/config", "././.git", ".GIT/x", "sub/.git/config",
     "a\\..\\b", "C:/x", ".git./x", ".git /x", ".g\u200bit/x", "git~1/x", ".git::$INDEX/x", "x" * 5000],
)  # fmt: skip
def test_what_leads_out_or_into_the_repository_itself_is_refused(path):
    with pytest.raises(ValueError, match="Workspace path"):
        normalise(path)


@pytest.mark.rule("S115")
def test_a_list_of_paths_has_each_once_and_no_more_than_its_limit():
    assert normalise_all(["b", "./b", "a", "b/", "c"], 2) == ["b", "a"]
    assert len(normalise_all([f"f{number}" for number in range(100)], 40)) == 40


@pytest.mark.rule("SW21", "S23")
def test_changes_that_cannot_be_meant_are_left_out(tmp_path):
    said = [
        {"path": "./ok", "change_type": "added"}, {"path": "../../etc/passwd", "change_type": "modified"}, {"path": "x", "change_type": "owned"},
        {"path": "new", "change_type": "renamed", "old_path": "old"}, {"path": "new", "change_type": "renamed"}, {"path": ".git/config", "change_type": "added"},
        3, None, {}, {"path": 3, "change_type": "deleted"},
    ]  # fmt: skip
    (tmp_path / "changes.json").write_text(json.dumps({"changes": said}))
    (tmp_path / "final.diff").write_bytes(b"\xff\0diff")
    changes, diff = read_changes(tmp_path)
    assert [change["path"] for change in changes] == ["ok", "new", "3"] and changes[1]["old_path"] == "old"
    assert diff == "\ufffd\ufffddiff"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "3",
        "{",
        "[" * 100_000,
        '{"phase": 7, "agent_at": "x", "agent_stderr": -1, "workspace": [], "failed": 3}',
    ],
)
def test_a_report_that_makes_no_sense_says_nothing(tmp_path, content):
    (tmp_path / "stage.json").write_text(content)
    (tmp_path / "changes.json").write_text(content)
    staged = read_staged(tmp_path)
    assert staged.agent_at is None and staged.said == 0 and staged.facts == {} and staged.failed is None
    read_changes(tmp_path)


def test_a_link_where_a_report_should_be_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text('{"changes": [{"path": "x", "change_type": "added"}], "phase": "agent"}')
    for name in ("changes.json", "stage.json", "final.diff"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    assert read_changes(tmp_path) is None and read_staged(tmp_path).phase == "preparing"
