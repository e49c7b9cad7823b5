"""What the command line asks of the database: plain SQL that any client could send. If it fails, one command fails."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from typing import Any

import asyncpg

from leasehold.db.away import AWAY, words
from leasehold.db.connect import connect, speak_json
from leasehold.db.conversation import Conversation
from leasehold.errors import DatabaseAway, DatabaseRefused

Row = dict[str, Any]
NO_RIGHT = "This login may not: it takes another role, see `Who may do what` in sql/README.md, or another login."
COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "unpriced")


class Client(Conversation):
    """One connection and the users' side of the schema."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(self, statement: str, *arguments: object) -> list[Row]:
        """Rows of `statement`. Raises DatabaseRefused with SQLSTATE and hint, or DatabaseAway."""
        with told():
            return [dict(row) for row in await self._connection.fetch(statement, *arguments)]

    async def enqueue(self, fields: Mapping[str, object]) -> Row:
        """Call `leasehold.enqueue` with the given named arguments: job_id and disposition."""
        named = ", ".join(f"{name} => ${number}" for number, name in enumerate(fields, 1))
        return (await self.rows(f"select * from leasehold.enqueue({named})", *fields.values()))[0]  # noqa: S608 names are ours

    async def cancel(self, job: int, reason: str | None) -> str:
        """`cancelled` or `requested`."""
        return str((await self.rows("select leasehold.cancel($1, $2) as answer", job, reason))[0]["answer"])

    async def retry(self, job: int) -> str:
        """`queued` or `deferred`."""
        return str((await self.rows("select leasehold.retry($1) as answer", job))[0]["answer"])

    async def pause(self, scope: str, name: str | None, reason: str | None) -> None:
        """Start nothing new of an agent, queue, tenant or host, or nothing at all."""
        arguments = (reason,) if name is None else (name, reason)
        await self.rows(f"select leasehold.pause_{scope}({_places(arguments)})", *arguments)

    async def resume(self, scope: str, name: str | None) -> None:
        """Let it start again."""
        arguments = () if name is None else (name,)
        await self.rows(f"select leasehold.resume_{scope}({_places(arguments)})", *arguments)

    async def agents(self) -> list[Row]:
        """What starts each agent; for administrators, since an env may hold keys."""
        return await self.rows(
            "select name, adapter, status, command, launcher, env, workspace from leasehold.agents order by name"
        )

    async def add_agent(self, row: Mapping[str, object]) -> str:
        """Insert a row into `agents`; answers the statement, as psql would take it."""
        names = ", ".join(row)
        values = ", ".join([await self._literal(value) for value in row.values()])
        statement = f"INSERT INTO leasehold.agents ({names}) VALUES ({values});"  # noqa: S608 quoted by the server
        await self.rows(statement)
        return statement

    async def _literal(self, value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"ARRAY[{', '.join([await self._literal(each) for each in value])}]"
        text = value if isinstance(value, str) else json.dumps(value)
        return str((await self.rows("select quote_literal($1::text) as said", text))[0]["said"])

    async def advice(self, outcome: str, reason: str | None) -> str | None:
        """What to do about a reason."""
        found = await self.rows(
            "select advice from leasehold.reasons where reason = $1 order by outcome <> $2, outcome limit 1",
            reason,
            outcome,
        )
        return str(found[0]["advice"]) if found else None

    async def retention(self) -> list[Row]:
        """What is kept how long, and what went so far."""
        return await self.rows(
            "select what, keep::text as keep, batch, removed, last_removed_at, swept_at from leasehold.retention order by what"
        )

    async def removals(self) -> list[Row]:
        """Directories that still have to go, the one that has failed most first."""
        return await self.rows(
            "select id, host_id, path, what, wanted_at, next_at, attempts, error from leasehold.removals"
            " where done_at is null order by attempts desc, id limit 20"
        )

    async def jobs(self, limit: int) -> list[Row]:
        """The newest jobs, newest first."""
        return await self.rows("select * from leasehold.job_overview order by id desc limit $1", limit)

    async def job(self, job: int) -> Row | None:
        """One job as `job_overview` shows it."""
        found = await self.rows("select * from leasehold.job_overview where id = $1", job)
        return found[0] if found else None

    async def why(self, job: int) -> list[str]:
        """The story of one job, a sentence each."""
        return [str(row["why"]) for row in await self.rows("select why from leasehold.why($1) why", job)]

    async def stats(self) -> list[Row]:
        """`queue_stats`: counts and ages by queue, tenant and agent."""
        return await self.rows("select * from leasehold.queue_stats")

    async def schedules(self) -> list[Row]:
        """All schedules that the caller may see, the next one first."""
        return await self.rows(
            "select id, tenant, name, agent, cron, every::text as every, timezone, missed, jitter, enabled, next_at, last_at,"
            " last_job, error from leasehold.schedules order by enabled desc, next_at nulls first, name"
        )

    async def usage(self, by: Sequence[str], since: date | None) -> list[Row]:
        """Sums of `usage_totals` by these of its columns, the dearest first; a day or month in its order."""
        names = ", ".join(by)
        counts = ", ".join(f"least(sum({each}), 9e18)::bigint as {each}" for each in COUNTS)
        order = names if {*by} & {"day", "month"} else f"cost_usd desc nulls last, {names}"
        return await self.rows(
            f"select {names}, {counts}, sum(cost_usd) as cost_usd from leasehold.usage_totals"  # noqa: S608 columns of ours
            f" where $1::date is null or day >= $1 group by {names} order by {order}",
            since,
        )

    async def budgets(self) -> list[Row]:
        """`budget_status`."""
        return await self.rows("select * from leasehold.budget_status order by scope, name, period")

    async def threads(
        self, state: str, reader: str | None, limit: int, after: str | None, tenant: str | None
    ) -> list[Row]:
        """A page of `list_threads`."""
        return await self.rows(
            "select * from leasehold.list_threads($1, $2, $3, $4, $5)", state, reader, limit, after, tenant
        )

    async def thread(self, thread: str, tenant: str | None) -> Row | None:
        """One thread with its `active_summary`."""
        found = await self.rows(
            "select thread, tenant, status, title, summary, last_job, resolved_at, last_activity_at, created_at, version,"
            " leasehold.active_summary(thread, tenant) as active_summary from leasehold.threads"
            " where thread = $1 and tenant = coalesce($2, leasehold.my_default_tenant())",
            thread, tenant,
        )  # fmt: skip
        return found[0] if found else None

    async def thread_jobs(self, thread: str, limit: int, tenant: str | None) -> list[Row]:
        """The newest jobs of one thread."""
        return await self.rows(
            "select * from leasehold.list_jobs(thread => $1, rows_max => $2, tenant => $3)", thread, limit, tenant
        )

    async def messages(self, job: int | None, thread: str | None, after: int) -> list[Row]:
        """A page of messages behind `after`, of a job or else of a thread."""
        if job is not None:
            return await self.rows("select $1::bigint as job_id, * from leasehold.list_messages($1, $2)", job, after)
        return await self.rows("select * from leasehold.list_thread_messages($1, $2)", thread, after)

    async def message_changes(self, cursor: str | None, job: int | None, thread: str | None) -> list[Row]:
        """Messages that have changed since the cursor, as they are now."""
        return await self.rows("select * from leasehold.message_changes($1, 500, $2, $3)", cursor, job, thread)

    async def artifacts(self, job: int) -> list[Row]:
        """What a job has made, without the contents."""
        return await self.rows(
            "select id, run_id, kind, title, content_type, bytes, sha256, truncated, created_at from leasehold.artifacts"
            " where job_id = $1 order by id",
            job,
        )

    async def artifact(self, job: int, artifact: int) -> Row | None:
        """One of them, whole."""
        found = await self.rows("select * from leasehold.artifacts where job_id = $1 and id = $2", job, artifact)
        return found[0] if found else None

    async def runs(self, job: int) -> list[Row]:
        """All attempts at one job, oldest first."""
        return await self.rows(
            "select id, attempt, status, outcome, reason, message, exit_code, signal, worker_id, started_at, ended_at,"
            " resources, output from leasehold.runs where job_id = $1 order by attempt",
            job,
        )

    async def events(self, job: int, after: int) -> list[Row]:
        """Events of one job behind `after`. Gapless, so `seq` alone is a cursor that never skips."""
        return await self.rows(
            "select seq, at, run_id, level, phase, kind, message, data from leasehold.events"
            " where job_id = $1 and seq > $2 order by seq limit 500",
            job, after,
        )  # fmt: skip

    async def output(self, job: int, shown: Mapping[tuple[int, str], int]) -> list[Row]:
        """Output of one job's runs behind the offsets in `shown`, in the order it was stored."""
        streams = list(shown)
        return await self.rows(
            "select o.at, o.run_id, o.stream, o.byte_offset, o.bytes from leasehold.output o"
            " left join unnest($2::bigint[], $3::text[], $4::bigint[]) as s(run_id, stream, upto) using (run_id, stream)"
            " where o.job_id = $1 and o.byte_offset >= coalesce(s.upto, 0)"
            " and o.run_id in (select id from leasehold.runs where job_id = $1)"
            " order by o.at, o.run_id, o.stream, o.byte_offset limit 500",
            job, [run for run, _ in streams], [stream for _, stream in streams], list(shown.values()),
        )  # fmt: skip

    async def changes_start(self) -> tuple[str, int, int]:
        """A cursor behind which lies everything that commits from now on."""
        rows = await self.rows("select pg_snapshot_xmin(pg_current_snapshot())::text as xid")
        return rows[0]["xid"], 0, 0

    async def changes(self, after: tuple[str, int, int]) -> list[Row]:
        """Events of all jobs behind the cursor (xid, job, seq), below the oldest open transaction: never skips (X20)."""
        return await self.rows(
            "select xid::text as xid, job_id, seq, at, run_id, level, phase, kind, message, data from leasehold.events"
            " where (xid, job_id, seq) > ($1::text::xid8, $2::bigint, $3::int)"
            " and xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid, job_id, seq limit 500",
            *after,
        )

    async def health(self) -> Row:
        """What `leasehold doctor` shows of the server."""
        return (await self.rows(
            "select current_setting('server_version') as server, current_user as login,"
            " (select count(*) from leasehold.workers where state = 'alive' and lease_expires_at > leasehold.clock())"
            " as live_workers, (select count(*) from leasehold.jobs where status = 'queued') as queued,"
            " (select count(*) from leasehold.runs where ended_at is null) as live_runs"
        ))[0]  # fmt: skip


def _places(arguments: tuple[str | None, ...]) -> str:
    return ", ".join(f"${number}" for number in range(1, len(arguments) + 1))


@contextmanager
def told() -> Iterator[None]:
    """Turn what Postgres says into errors with a message and a hint."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if isinstance(error, AWAY):
            raise DatabaseAway(words(error)) from error
        hint = getattr(error, "hint", "") or (NO_RIGHT if error.sqlstate == "42501" else "")
        raise DatabaseRefused(error.sqlstate or "", _message(error), hint) from error
    except AWAY as error:
        raise DatabaseAway(words(error)) from error


def _message(error: asyncpg.PostgresError) -> str:
    if error.sqlstate in ("3F000", "42P01", "42883"):
        return f"{words(error)} (has `leasehold migrate` been run on this database?)"
    return words(error)


@asynccontextmanager
async def open_client(dsn: str) -> AsyncIterator[Client]:
    """A client for one command."""
    with told():
        connection = await connect(dsn, "leasehold cli")
    try:
        await speak_json(connection)
        yield Client(connection)
    finally:
        await connection.close(timeout=2)
