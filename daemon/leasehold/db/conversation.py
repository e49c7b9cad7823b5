"""What the command line says to agents and answers them: the users' side of turns and interactions. If it fails, one command fails."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
ASKED = "id, tenant, job_id, kind, status, tool, prompt, options, questions, input, asked, asked_at, expires_at, answered_by, answered_at, response"


class Conversation:
    """Part of Client, which has the connection."""

    async def rows(self, statement: str, *arguments: object) -> list[Row]:
        """Rows of `statement`."""
        raise NotImplementedError

    async def say(self, kind: str, job: int, text: str | None, idempotency_key: str | None) -> Row:
        """Steer, prompt or interrupt: the turn's row."""
        made = await self.rows(f"select leasehold.{kind}($1, $2, $3) as id", job, text, idempotency_key)
        found = await self.rows(
            "select id, job_id, seq, kind, state, deliverable, why, follow_up_job from leasehold.turns where id = $1",
            made[0]["id"],
        )
        return found[0]

    async def cancel_turn(self, turn: int, reason: str | None) -> str:
        """The state of the turn after it."""
        return str((await self.rows("select leasehold.cancel_turn($1, $2) as answer", turn, reason))[0]["answer"])

    async def turns(self, job: int, after: int, limit: int) -> list[Row]:
        """Turns of one job behind `after`, in order."""
        return await self.rows(
            "select id, seq, kind, state, outcome, why, text, actor, follow_up_job, created_at, acknowledged_at, ended_at"
            " from leasehold.turns where job_id = $1 and seq > $2 order by seq limit $3",
            job, after, limit,
        )  # fmt: skip

    async def interactions(self, job: int | None, every: bool, limit: int) -> list[Row]:
        """What agents ask, the oldest first; only what is open, unless `every`."""
        return await self.rows(
            f"select {ASKED} from leasehold.interactions where (status = 'pending' or $2) and ($1::bigint is null or job_id = $1)"  # noqa: S608 columns of ours
            " order by id limit $3",
            job, every, limit,
        )  # fmt: skip

    async def answer(
        self, interaction: int, answer: str | None, message: str | None, answers: Mapping[str, Any] | None
    ) -> str:
        """`answered`."""
        rows = await self.rows(
            "select leasehold.answer($1, $2, $3, $4) as answer", interaction, answer, message, answers
        )
        return str(rows[0]["answer"])
