"""The workspace of a run: ready before its agent, and looked at after it. If it fails, one run fails."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from leasehold.stage.changes import record
from leasehold.stage.ends import Ends
from leasehold.stage.envfile import laid
from leasehold.stage.git import Git
from leasehold.stage.lock import among, locked
from leasehold.stage.mirror import Mirror
from leasehold.stage.plan import Workspace
from leasehold.stage.report import Report
from leasehold.stage.steps import Clock, Step, Steps
from leasehold.stage.tree import Tree, find_tree, make_tree
from leasehold.stage.within import remove
from leasehold.stage.words import StageError
from leasehold.stage.wrecked import mend


@contextmanager
def prepared(plan: Workspace | None, report: Report, ends: Ends, env: Mapping[str, str]) -> Iterator[str]:
    """Where the agent is to work. Raises StageError."""
    if plan is None:
        yield str(Path.cwd())
        return
    steps = Steps(Clock(plan.prepare_timeout, ends), env, report.directory / "stderr")
    if plan.repository is None:
        yield _directory(plan, steps)
        return
    with ExitStack() as held:
        tree = _worktree(plan, steps, held)
        report.add({"workspace": {"branch": tree.branch, "base": tree.base, "base_commit": tree.base_commit}})
        held.enter_context(laid(plan.env_file, tree, Git(steps, tree.path)))
        if not tree.prepared:
            _prepare(plan, steps)
            tree.done()
        yield tree.path
        record(plan, tree, report, env)


def _directory(plan: Workspace, steps: Steps) -> str:
    """A plain one. A preparation cannot know what was done there before: it is done each time."""
    path = Path(plan.path)
    for left in plan.gone:
        remove(Path(left))
    if plan.fresh:
        path.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        raise StageError("workspace", "directory", f"there is no directory {path}")
    _prepare(plan, steps)
    return str(path)


def _worktree(plan: Workspace, steps: Steps, held: ExitStack) -> Tree:
    assert plan.repository is not None
    assert plan.home is not None
    if shutil.which("git", path=steps.env.get("PATH")) is None:
        raise StageError("workspace", "git", "there is no program git on PATH")
    home = Path(plan.home)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home, steps.clock):
        mirror = Mirror(Git(steps, str(home)), home, plan.repository)
        try:
            tree = _found_or_made(plan, mirror, home)
        except StageError as error:
            mend(mirror, home, error)
            tree = _found_or_made(plan, mirror, home)
        held.enter_context(among(home))
    return tree


def _found_or_made(plan: Workspace, mirror: Mirror, home: Path) -> Tree:
    if mirror.looks_whole and (found := find_tree(plan, home)):
        return found
    mirror.refresh()
    return make_tree(plan, mirror)


def _prepare(plan: Workspace, steps: Steps) -> None:
    for number, command in enumerate(plan.prepare, 1):
        steps.run(Step(f"prepare {number}", command, plan.path))
