"""What a run has changed in its worktree: a list of paths and a diff, beside its output. If it fails, the run ends without them."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from leasehold.stage.git import Git
from leasehold.stage.plan import Workspace
from leasehold.stage.report import Report, write_json
from leasehold.stage.steps import Clock, Steps
from leasehold.stage.tree import Tree
from leasehold.stage.words import StageError

KINDS = {"A": "added", "C": "added", "D": "deleted", "R": "renamed"}
NAMES_LIMIT = 1 << 20
"""Bytes of names that are read."""
STEP = "record"


def record(plan: Workspace, tree: Tree, report: Report, env: Mapping[str, str]) -> None:
    """Write changes.json and final.diff: everything since the commit that the work began from, committed or not."""
    try:
        steps = Steps(
            Clock(plan.record_timeout, None, "what was changed was not recorded"), env, report.directory / "stderr"
        )
        _record(plan, tree, report, Git(steps, tree.path))
    except (StageError, OSError) as error:  # what the agent has done stands; how it ended, too
        report.add({"record_failed": str(error)})


def _record(plan: Workspace, tree: Tree, report: Report, git: Git) -> None:
    head = git.commit("HEAD")
    branch = git.line(STEP, "rev-parse", "--abbrev-ref", "HEAD")
    facts: dict[str, object] = {
        "branch": branch if branch != "HEAD" else None,  # detached
        "base": tree.base,
        "base_commit": tree.base_commit,
        "head_commit": head,
        "dirty": bool(git.ask(STEP, "status", "--porcelain=v1", "-z", "--untracked-files=normal", limit=1 << 12)),
    }
    report.add({"workspace": facts})
    with _index(report.directory, git) as index:
        names = _compare(plan, tree, git, index, NAMES_LIMIT, "--name-status", "-z")
        diff = _compare(plan, tree, git, index, plan.diff_limit + 1)
    listed = list(_changes(names))
    cut = len(diff) > plan.diff_limit
    if cut:
        diff = diff[: diff.rfind(b"\n", 0, plan.diff_limit) + 1]
    (report.directory / "final.diff").write_bytes(diff)
    more = len(listed) > plan.changes_limit or len(names) >= NAMES_LIMIT
    whole = {**facts, "changes": listed[: plan.changes_limit], "more": more, "diff_bytes": len(diff), "diff_cut": cut}
    write_json(report.directory / "changes.json", whole)


@contextmanager
def _index(directory: Path, git: Git) -> Iterator[Mapping[str, str]]:
    """A copy of the index in which what is not tracked counts as added; the agent's own stays as it is."""
    ours = directory / "index"
    try:
        theirs = Path(git.line(STEP, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if theirs.is_file():
            shutil.copyfile(theirs, ours)
        env = {"GIT_INDEX_FILE": str(ours)}
        try:
            git.ask(STEP, "add", "--intent-to-add", "--ignore-errors", "--", ".", env=env)
        except StageError as error:
            if error.kind != "workspace":  # a file that cannot be read, for one: the others count
                raise
        yield env
    finally:
        ours.unlink(missing_ok=True)


def _compare(plan: Workspace, tree: Tree, git: Git, index: Mapping[str, str], limit: int, *words: str) -> bytes:
    """Compare, by nothing that the repository could choose."""
    but = [f":(exclude,top,literal){plan.env_file.path}"] if plan.env_file else []
    plain = (
        "diff",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--find-renames",
        "--src-prefix=a/",
        "--dst-prefix=b/",
    )
    return git.ask(STEP, *plain, *words, tree.base_commit, "--", ".", *but, limit=limit, env=index)


def _changes(names: bytes) -> Iterator[dict[str, str]]:
    """Pairs of kind and path, with two paths for a rename; what stands in the way of the limit is left out."""
    words = iter(names.decode("utf-8", "surrogateescape").split("\0"))
    for kind in words:
        if not kind:
            return
        first, second = next(words, ""), next(words, "") if kind[0] in "RC" else ""
        path = second or first
        if path:
            change = {"path": path, "change_type": KINDS.get(kind[0], "modified")}
            yield {**change, "old_path": first} if kind[0] == "R" else change
