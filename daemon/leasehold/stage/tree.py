"""A worktree: made, found again, or made anew. If it fails, the run fails and the next one makes it anew."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from leasehold.stage.git import Git
from leasehold.stage.mirror import Mirror
from leasehold.stage.plan import Workspace
from leasehold.stage.report import write_json
from leasehold.stage.within import remove
from leasehold.stage.words import StageError

MARKER = "leasehold.json"
LIMIT = 64 << 10
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Tree:
    """What is known of a worktree: written beside it when it is whole, and when its preparation is done."""

    path: str
    notes: str  # the directory in the mirror that git keeps of it
    branch: str
    base: str
    base_commit: str
    prepared: bool = False

    def note(self) -> None:
        """From here on it is one that can be found again."""
        write_json(Path(self.notes) / MARKER, asdict(self))

    def done(self) -> "Tree":
        """Its preparation is, too."""
        ready = replace(self, prepared=True)
        ready.note()
        return ready


def find_tree(plan: Workspace, home: Path) -> Tree | None:
    """A worktree that an earlier run of the same work has left, whole; None: there is none."""
    notes = home / "mirror.git" / "worktrees" / Path(plan.path).name
    try:
        said = json.loads((notes / MARKER).read_bytes()[:LIMIT])
        tree = Tree(**said)
    except (OSError, ValueError, TypeError):
        return None
    whole = _leads_to(Path(plan.path, ".git"), notes) and (notes / "HEAD").is_file()
    ours = tree.path == plan.path and tree.notes == str(notes) and COMMIT.fullmatch(str(tree.base_commit))
    return tree if whole and ours else None


def _leads_to(file: Path, notes: Path) -> bool:
    try:
        return (
            not file.is_symlink()
            and file.is_file()
            and file.read_bytes()[:LIMIT].strip() == f"gitdir: {notes}".encode()
        )
    except OSError:
        return False


def make_tree(plan: Workspace, mirror: Mirror) -> Tree:
    """A fresh worktree on its branch; where the branch is known already, it goes on with that. Raises StageError."""
    path, notes = Path(plan.path), mirror.path / "worktrees" / Path(plan.path).name
    for left in (path, notes, *map(Path, plan.gone)):  # half of one, one that somebody has wrecked, or those not needed
        remove(left)
    path.parent.mkdir(parents=True, exist_ok=True)
    mirror.git.run("worktree", "worktree", "prune")
    base, commit = mirror.base(plan.base)
    branch = _branch(plan, base, mirror.default)
    _add(mirror.git, str(path), branch, commit)
    began = mirror.git.line("worktree", "merge-base", commit, f"refs/heads/{branch}")
    tree = Tree(str(path), str(notes), branch, base, began)
    tree.note()
    return tree


def _branch(plan: Workspace, base: str, default: str | None) -> str:
    if plan.branch is None or plan.branch in (base, default):
        raise StageError("workspace", "branch", f"work is not done on {plan.branch!r}: that is what it begins from")
    return plan.branch


def _add(git: Git, path: str, branch: str, commit: str) -> None:
    if git.commit(f"refs/heads/{branch}"):
        git.run("worktree", "worktree", "add", "--quiet", "--", path, branch)
        return
    start = git.commit(f"refs/remotes/origin/{branch}") or commit
    git.run("worktree", "worktree", "add", "--quiet", "--no-track", "-b", branch, "--", path, start)
