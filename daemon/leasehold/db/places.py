"""The calls about where runs work. If one fails, its caller decides what fails."""

from collections.abc import Mapping
from typing import Any

from leasehold.db.access import Access
from leasehold.models import RunKey, Worker


class Places(Access):
    """Every SQL function of that kind, one method each, same name."""

    async def take_workspace(self, worker: Worker, run: RunKey) -> Mapping[str, Any]:
        """Where the run works, and what is to be made ready there. Repeatable."""
        rows = await self._fetch(
            "select leasehold.take_workspace($1, $2, $3, $4)", worker.id, worker.token, run.id, run.token
        )
        answer: Mapping[str, Any] = rows[0][0]
        return answer

    async def report_workspace(
        self, worker: Worker, run: RunKey, facts: Mapping[str, Any], changes: list[dict[str, str]] | None, diff: str | None
    ) -> None:  # fmt: skip
        """What became of it: branch and commits, changed files, the diff. Repeatable."""
        await self._fetch(
            "select leasehold.report_workspace($1, $2, $3, $4, $5, $6, $7)",
            worker.id, worker.token, run.id, run.token, dict(facts), changes, diff,
        )  # fmt: skip
