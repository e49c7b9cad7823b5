"""The calls about what somebody wants of live conversations. If one fails, its caller decides what fails."""

from collections.abc import Collection, Sequence

from leasehold.db.access import Access
from leasehold.models import Control, Worker


class Inputs(Access):
    """Every SQL function of that kind, one method each, same name."""

    async def read_inputs(self, worker: Worker, runs: Collection[int], *, again: bool) -> list[tuple[int, Control]]:
        """Pending controls of these live runs, in order: (run, control); `again`: those that were taken too."""
        rows = await self._fetch(
            "select * from leasehold.read_inputs($1, $2, $3, $4)", worker.id, worker.token, list(runs), again
        )
        return [(row["run_id"], Control(row["kind"], row["id"], row["text"], row["data"] or {})) for row in rows]

    async def take_inputs(self, worker: Worker, inputs: Sequence[tuple[int, Control]]) -> None:
        """The agents have these. Repeatable."""
        await self._fetch(
            "select leasehold.take_inputs($1, $2, $3, $4, $5)", worker.id, worker.token,
            [run for run, _ in inputs], [each.kind for _, each in inputs], [each.id for _, each in inputs],
        )  # fmt: skip
