"""git, and nothing that a repository would have it run. If a command fails, its step fails.

Whoever wrote a repository, or worked in a worktree of it before, must not decide what we execute: no hooks, no file system
monitor, no prompts, no pager, no transport that is a command, no editor, and none of git's variables from outside.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from leasehold.stage.steps import Step, Steps

KEPT = (
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
)
"""Variables of git that say how to reach a repository; all others would lead a command of ours astray."""
NEVER = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=false", "core.pager=cat", "core.editor=false",
    "core.askPass=false", "core.sparseCheckout=false", "core.alternateRefsCommand=true", "protocol.ext.allow=never",
    "protocol.fd.allow=never", "submodule.recurse=false", "fetch.recurseSubmodules=false", "gc.auto=0", "maintenance.auto=false",
    "advice.detachedHead=false", "core.quotePath=false", "diff.noprefix=false", "diff.mnemonicPrefix=false",
    "diff.ignoreSubmodules=dirty", "diff.renames=true", "color.ui=never", "log.showSignature=false", "safe.directory=*",
    "checkout.defaultRemote=origin", "init.defaultBranch=main",
)  # fmt: skip


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The same without git's own variables, in plain English, and without anybody to ask."""
    kept = {name: value for name, value in base.items() if not name.startswith("GIT_") or name in KEPT}
    return {
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        **kept,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GCM_INTERACTIVE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


class Git:
    """Commands in one directory."""

    def __init__(self, steps: Steps, where: str) -> None:
        self.steps = steps
        self.where = where

    def at(self, where: str) -> "Git":
        """The same in another directory."""
        return Git(self.steps, where)

    def run(self, step: str, *words: str) -> None:
        """What it says goes to stderr. Raises StageError."""
        self.steps.run(self._step(step, words))

    def ask(self, step: str, *words: str, limit: int = 1 << 20, env: Mapping[str, str] | None = None) -> bytes:
        """The first `limit` bytes of what it answers. Raises StageError."""
        return self.steps.answer(self._step(step, words, env), limit)[1]

    def line(self, step: str, *words: str) -> str:
        """A one-line answer. Raises StageError."""
        return self.ask(step, *words).decode("utf-8", "surrogateescape").strip()

    def commit(self, name: str) -> str | None:
        """The commit behind a name; None: there is no such name."""
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        status, said = self.steps.answer(self._step("look", words), fine=(0, 1, 128))
        return said.decode("ascii", "replace").strip() if status == 0 else None

    def agrees(self, *words: str) -> bool:
        """False only if git says itself that something is wrong. Raises StageError if it says nothing."""
        return self.steps.answer(self._step("look", words), fine=(0, 1, 128))[0] != 128

    def _step(self, name: str, words: Sequence[str], env: Mapping[str, str] | None = None) -> Step:
        overrides = [word for setting in NEVER for word in ("-c", setting)]
        above = str(Path(self.where).parent)  # a repository that it happens to lie in is none of ours
        whole = {**environment(self.steps.env), "GIT_CEILING_DIRECTORIES": above, **(env or {})}
        return Step(name, ["git", "--no-pager", *overrides, *words], self.where, whole, ("git", *words))
