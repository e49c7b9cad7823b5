"""Which paths can be meant inside a workspace. Pure."""

import re
from collections.abc import Sequence

LIMIT = 4096
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
GIT = re.compile(r"(\.git|git~[0-9]+)[. ]*(:.*)?", re.IGNORECASE | re.DOTALL)
"""The repository's own folder, as any file system may spell it."""


def normalise(path: str) -> str:
    """The path below its workspace, without detours. Raises ValueError with what is wrong."""
    if not (path := path.strip()):
        raise ValueError("Workspace path is required.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or "\0" in path or "\\" in path or ".." in parts or not parts or len(path) > LIMIT
    if outside or any(GIT.fullmatch(INVISIBLE.sub("", part)) for part in parts) or re.match("[A-Za-z]:", path):
        raise ValueError("Workspace path must stay inside the repository.")
    return "/".join(parts)


def normalise_all(paths: Sequence[str], at_most: int) -> list[str]:
    """Each once, the first of them first, and no more than so many. Raises ValueError."""
    return list(dict.fromkeys(normalise(path) for path in paths))[:at_most]
