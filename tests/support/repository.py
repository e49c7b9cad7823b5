"""A git repository for tests, with nothing of the machine's own settings in it."""

import os
import subprocess
from pathlib import Path

WHO = "[user]\n\tname = Somebody\n\temail = somebody@example.org\n[init]\n\tdefaultBranch = main\n"


class Repository:
    """Its work tree is where its owner works; runs clone it by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path.with_name(f"{path.name}.gitconfig")
        self.settings.write_text(WHO)
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def environment(self) -> dict[str, str]:
        """For git, and for agents that use it."""
        return {"GIT_CONFIG_GLOBAL": str(self.settings), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(self, *words: str, cwd: Path | None = None) -> str:
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | self.environment
        said = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *words],
            cwd=cwd or self.path,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        return said.stdout.strip()

    def commit(self, **files: str) -> str:
        """Files by name, with `__` for a dot; answers the commit."""
        for name, text in files.items():
            (self.path / name.replace("__", ".")).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "more")
        return self.git("rev-parse", "HEAD")


def made(directory: Path) -> Repository:
    """One with a commit: README.md, main.py and old.txt."""
    repository = Repository(directory)
    repository.commit(README__md="read me\n", main__py="print(1)\n" * 20, old__txt="old\n")
    return repository
