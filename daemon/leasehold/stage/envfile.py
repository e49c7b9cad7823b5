"""A file of settings that a repository's programs read: there while the agent is, and never in a commit. If it fails, one run fails."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from leasehold.stage.git import Git
from leasehold.stage.plan import EnvFile
from leasehold.stage.tree import Tree
from leasehold.stage.words import StageError

BELOW = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def laid(env_file: EnvFile | None, tree: Tree, git: Git) -> Iterator[None]:
    """It is there, for the user alone. What a repository has of that name itself is left alone. Raises StageError."""
    if env_file is None:
        yield
        return
    _exclude(env_file.path, git)
    with ExitStack() as opened:
        try:
            above, name = _descend(tree.path, env_file.path, opened)
            _write(above, name, env_file.text.encode("utf-8", "surrogatepass"))
        except OSError as error:
            raise StageError("workspace", "env file", f"cannot write {env_file.path}: {error.strerror}") from error
        try:
            yield
        finally:
            _remove(above, name)


def _exclude(path: str, git: Git) -> None:
    """No `git add` takes it up, in no worktree of the repository."""
    if git.ask("env file", "ls-files", "-z", "--", f":(literal){path}"):
        raise StageError("workspace", "env file", f"the repository has a file {path} of its own")
    exclude = Path(git.line("env file", "rev-parse", "--path-format=absolute", "--git-path", "info/exclude"))
    exclude.parent.mkdir(exist_ok=True)
    line = f"/{path}\n"
    with exclude.open("a+", encoding="utf-8") as file:
        file.seek(0)
        if line not in file.readlines():
            file.write(line)


def _descend(root: str, path: str, opened: ExitStack) -> tuple[int, str]:
    """The directory that it is in, by no link, and its name there."""
    *above, name = path.split("/")
    here = os.open(root, BELOW)
    opened.callback(os.close, here)
    for part in above:
        try:
            os.mkdir(part, 0o750, dir_fd=here)
        except FileExistsError:
            pass
        here = os.open(part, BELOW, dir_fd=here)
        opened.callback(os.close, here)
    return here, name


def _write(above: int, name: str, content: bytes) -> None:
    _remove(above, name)  # ours, of a run that was killed: what git tracks was refused before
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=above)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _remove(above: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        pass
