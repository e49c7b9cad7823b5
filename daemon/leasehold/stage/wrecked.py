"""A shared clone that is no repository any more: mended if little is missing, else made anew. If it fails, the run says what to remove.

A power cut, a full disk or an agent may have done it. What others may still work in stays where it is.
"""

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from leasehold.stage.lock import alone
from leasehold.stage.mirror import Mirror
from leasehold.stage.within import remove
from leasehold.stage.words import StageError, say

STEPS = ("clone", "fetch", "worktree")
"""Those that fail in a clone that is wrecked."""
ASIDE = "mirror.git.wrecked"
"""Where the last one that was wrecked is, beside its place."""


def mend(mirror: Mirror, home: Path, error: StageError) -> None:
    """See to it that there is one. Raises StageError, the same one unless the clone is to blame."""
    if error.kind != "workspace" or error.step not in STEPS or not mirror.is_wrecked():
        raise error
    say("clone", f"{mirror.path} is wrecked: {error}")
    try:
        fresh = mirror.begun()
        if _put_back(mirror, fresh):
            say("clone", "it is whole again: only its settings were missing")
            return
        with alone(home) as nobody_else:
            if not nobody_else:
                raise _in_use(mirror, error)
            mirror.fetch(fresh)
            _replace(mirror, fresh)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):  # a reason of its own
            raise
        told = f"{mirror.path} is wrecked and cannot be made anew ({problem}): remove it when no run works below {home}"
        raise StageError("workspace", "clone", told) from problem


def _put_back(mirror: Mirror, fresh: Path) -> bool:
    """The small files, from an empty one. That harms nobody, and with them goes what an agent may have written there."""
    if mirror.path.is_symlink() or not (mirror.path / "objects").is_dir():
        return False
    for name in ("HEAD", "config"):
        remove(mirror.path / name)
        shutil.copyfile(fresh / name, mirror.path / name)
    return not mirror.is_wrecked()


def _replace(mirror: Mirror, fresh: Path) -> None:
    """Aside and not away, with its worktrees: what was never pushed, or not even committed, is nowhere else."""
    aside = mirror.path.with_name(ASIDE)
    told = "what was committed and not pushed is only in the old one, if at all"
    with suppress(StageError):  # all that can be read of it, or nothing
        words = ("fetch", "--quiet", "--no-write-fetch-head", "--", str(mirror.path), "refs/heads/*:refs/heads/*")
        mirror.git.at(str(fresh)).run("clone", *words)
        told = "its branches came along"
    remove(aside)
    mirror.path.rename(aside)
    if aside.is_dir() and not aside.is_symlink():
        with suppress(FileNotFoundError):
            mirror.path.with_name("trees").rename(aside / "trees")
    fresh.rename(mirror.path)
    say("clone", f"it was made anew, {told}; the old one and its worktrees are {aside}")


def _in_use(mirror: Mirror, error: StageError) -> StageError:
    return StageError(
        "workspace",
        "clone",
        f"{mirror.path} is wrecked ({error}), and other runs work in worktrees of it: the first job after their end makes it anew. "
        f"By hand: remove {mirror.path} when they have ended",
    )
