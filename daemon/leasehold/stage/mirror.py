"""What all worktrees of a repository share on this host: one bare clone. If it fails, the run fails and another may try again."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from leasehold.stage.git import Git
from leasehold.stage.within import remove
from leasehold.stage.words import StageError

STALE = 60.0
"""Seconds after which git's own locks in it are left behind by somebody who was killed: it takes them for moments."""
COMMANDS = re.compile(
    r"(filter|include|includeif|url|credential|http|protocol|uploadpack|extensions\.worktreeconfig"
    r"|core\.(sshcommand|gitproxy|attributesfile|worktree)|remote\..*\.(uploadpack|receivepack|vcs|proxy))(\.|$)"
)
"""Settings of a repository that name commands, or lead to other settings, as git lists them."""
CONNECTED = ("rev-list", "--objects", "--all", "--quiet")
"""Is everything there that a branch needs?"""
BRANCHES = "+refs/heads/*:refs/remotes/origin/*"


class Mirror:
    """Its branches are ours, the repository's own are `origin/...` in it. All of it under the lock of `home`."""

    def __init__(self, git: Git, home: Path, repository: str) -> None:
        self.path = home / "mirror.git"
        self.git = git.at(str(self.path))
        self._outside = git.at(str(home))
        self._url = repository
        self.default: str | None = None

    def refresh(self) -> None:
        """Have what the repository has now. Raises StageError."""
        self.default = self._default_branch()
        if not os.path.lexists(self.path):
            fresh = self.begun()
            self.fetch(fresh)
            fresh.rename(self.path)
            return
        if not self.looks_whole:
            raise StageError("workspace", "clone", f"{self.path} is no repository")
        self._unlock()
        self._tidy()
        self.fetch(self.path)

    @property
    def looks_whole(self) -> bool:
        """Are its parts there? Without asking git, so it costs nothing."""
        try:
            return (
                not self.path.is_symlink()
                and all((self.path / name).is_dir() for name in ("objects", "refs"))
                and all((self.path / name).stat().st_size > 0 for name in ("HEAD", "config"))
            )
        except OSError:
            return False

    def is_wrecked(self) -> bool:
        """Is there one that is no repository, or lacks objects? That takes a while: to be asked when something has failed."""
        if not self.looks_whole:
            return os.path.lexists(self.path)
        with suppress(StageError):  # no time, no memory: who knows
            return not (self.git.agrees("rev-parse", "--git-dir") and self.git.agrees(*CONNECTED))
        return False

    def base(self, name: str | None) -> tuple[str, str]:
        """The branch to begin from and its commit. Raises StageError."""
        found = name or self.default
        if found is None:
            raise StageError("workspace", "base", f"{self._url} has no branch checked out: name a base_branch")
        if commit := self.git.commit(f"refs/remotes/origin/{found}"):
            return found, commit
        raise StageError("workspace", "base", f"{self._url} has no branch {found!r}")

    def _default_branch(self) -> str | None:
        said = self._outside.line("look", "ls-remote", "--symref", "--", self._url, "HEAD")
        for line in said.splitlines():
            if line.startswith("ref: refs/heads/"):
                return line.removeprefix("ref: refs/heads/").split("\t")[0]
        if not said:
            raise StageError("workspace", "look", f"{self._url} has no commit yet")
        return None

    def begun(self) -> Path:
        """An empty one beside its place, without anything of the repository: half a clone is none."""
        fresh = self.path.with_name("mirror.git.new")
        remove(fresh)
        self._outside.run("clone", "init", "--quiet", "--bare", "--", str(fresh))
        git = self._outside.at(str(fresh))
        for name, value in (("url", self._url), ("fetch", BRANCHES)):
            git.run("clone", "config", f"remote.origin.{name}", value)
        git.run("clone", "config", "gc.autoDetach", "false")  # what detaches from an agent is killed with it
        return fresh

    def fetch(self, into: Path) -> None:
        """From where we were told to, whatever the clone's own settings say by now."""
        words = ("fetch", "--quiet", "--prune", "--no-write-fetch-head", "--", self._url, BRANCHES)
        self.git.at(str(into)).run("fetch", *words)

    def _tidy(self) -> None:
        """Agents may write its settings; those by which they would have us execute something go. Hooks never run for us."""
        file = ("config", "--file", str(self.path / "config"))
        names = self._outside.ask("clone", *file, "--name-only", "--null", "--list").decode("utf-8", "surrogateescape")
        for name in sorted({name for name in names.split("\0") if COMMANDS.match(name)}):
            self._outside.run("clone", *file, "--unset-all", name)

    def _unlock(self) -> None:
        for lock in [*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")]:
            try:
                if time.time() - lock.lstat().st_mtime > STALE:
                    os.unlink(lock)  # noqa: PTH108 a str or a Path, a link or a file
            except OSError:
                continue  # gone by itself
