"""Remove a directory below another, and nothing else, whatever lies on the way. If it fails, it raises OSError."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ROOMS = frozenset({"sessions", "workspaces"})
"""What may be removed from a state directory by name; run directories are the keeper's."""


def remove_beneath(state_dir: Path, path: str) -> None:
    """Remove `path`, a tree below `state_dir`; gone already is fine. Raises OSError, also for a link anywhere below `state_dir`."""
    *above, name = _parts(path)
    with ExitStack() as opened:
        here = os.open(
            state_dir, DIRECTORY & ~os.O_NOFOLLOW
        )  # where it is, whoever runs the daemon has said, by a link or not
        opened.callback(os.close, here)
        for part in above:  # each is opened from the one above, so that nobody can put a link under us
            try:
                here = os.open(part, DIRECTORY, dir_fd=here)
            except FileNotFoundError:
                return
            opened.callback(os.close, here)
        try:
            shutil.rmtree(name, dir_fd=here)  # itself follows no link and refuses to begin at one
        except FileNotFoundError:
            return


def _parts(path: str) -> list[str]:
    """The names on the way. Raises OSError for what may not be removed."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0] not in ROOMS or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OSError(f"{path!r} is no directory that may be removed")
    return parts
