"""The calls about what a run has made: artifacts, changes of its workspace. If one fails, its caller decides what fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.db.access import Access
from leasehold.models import RunKey, Worker


class Results(Access):
    """Every SQL function of that kind, one method each, same name."""

    async def add_artifact(
        self, worker: Worker, run: RunKey, kind: str, title: str, content: str, content_type: str, key: str
    ) -> int:
        """Keep a named result; its id. With the same key the first one stands."""
        rows = await self._fetch(
            "select leasehold.add_artifact($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            worker.id, worker.token, run.id, run.token, kind, title, content, content_type, key,
        )  # fmt: skip
        return int(rows[0][0])

    async def record_changes(self, worker: Worker, run: RunKey, changes: Sequence[Mapping[str, Any]]) -> int:
        """Which files it has changed: path, change_type and more, see the SQL. Repeatable; answers how many were taken."""
        rows = await self._fetch(
            "select leasehold.record_changes($1, $2, $3, $4, $5)",
            worker.id, worker.token, run.id, run.token, [dict(change) for change in changes],
        )  # fmt: skip
        return int(rows[0][0])
