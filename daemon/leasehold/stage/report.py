"""What a stage tells the daemon, by stage.json in the run directory. If it cannot be written, the run fails.

The file is the agent's user's, so whoever reads it believes no more of it than of what an agent says of itself.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from leasehold.stage.words import StageError


class Report:
    """The file, whole at any moment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "stage.json"
        self._facts: dict[str, object] = {}
        self.failed_as: str | None = None

    def phase(self, name: str) -> None:
        """`preparing`, `agent`, `recording` or `over`; with the moment, and how much stood in stderr by then."""
        err = self._path.with_name("stderr")
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.add({"phase": name, f"{name}_at": at, f"{name}_stderr": err.stat().st_size if err.exists() else 0})

    def failed(self, error: StageError) -> None:
        """Why there was no agent, or what went wrong after it."""
        self.failed_as = error.kind
        self.add({"failed": {"kind": error.kind, "step": error.step, "message": str(error)}})

    def add(self, facts: Mapping[str, object]) -> None:
        """Say more, and leave what was said."""
        self._facts.update(facts)
        write_json(self._path, self._facts)


def write_json(path: Path, content: object) -> None:
    """All of it or nothing."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content), encoding="ascii")
    fresh.chmod(0o640)
    fresh.rename(path)
