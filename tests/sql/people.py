"""Workers that call the functions as the daemon does, and a clock that stands still."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit

LEASE = timedelta(seconds=120)
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class Clock:
    """The frozen clock of one or more connections (G: leasehold.clock is the only source of time)."""

    def __init__(self, *connections):
        self.connections, self.now = connections, NOON

    async def set(self, now):
        self.now = now
        for connection in self.connections:
            await connection.execute("select set_config('leasehold.now', $1, false)", now.isoformat())

    async def forward(self, **step):
        await self.set(self.now + timedelta(**step))


class Worker:
    """One life of a daemon, seen from the database."""

    def __init__(self, sql, row, keeper="keeper-1"):
        self.sql, self.id, self.token, self.keeper = sql, row["worker"], row["token"], keeper

    @property
    def me(self):
        return self.id, self.token

    async def claim(self, slots=100):
        return await self.sql.fetch("select * from leasehold.claim($1, $2, $3)", *self.me, slots)

    async def claim_one(self):
        [run] = await self.claim(1)
        return run

    async def claim_job(self, job):
        """Claim until this job's run comes."""
        while True:
            run = await self.claim_one()
            if run["job_id"] == job:
                return run

    async def read(self, runs):
        return await self.sql.fetch("select * from leasehold.read_runs($1, $2, $3)", *self.me, ids(runs))

    async def renew(self, runs=(), lease=LEASE):
        return await self.sql.fetch("select * from leasehold.renew($1, $2, $3, $4)", *self.me, ids(runs), lease)

    async def start(self, run, identity=None):
        await self.sql.execute(
            "select leasehold.start_run($1, $2, $3, $4, $5)",
            *self.me,
            run["run_id"],
            run["run_token"],
            json.dumps(identity or {"pid": 7}),
        )

    async def stop(self, run, why="cancelled", sql=None):
        await (sql or self.sql).execute(
            "select leasehold.stop_run($1, $2, $3, $4, $5)", *self.me, run["run_id"], run["run_token"], why
        )

    async def suspect(self, run, clock="idle", **facts):
        await self.sql.execute(
            "select leasehold.suspect_run($1, $2, $3, $4, $5, $6)",
            *self.me,
            run["run_id"],
            run["run_token"],
            clock,
            json.dumps(facts),
        )

    async def unkillable(self, run, sql=None, **facts):
        await (sql or self.sql).execute(
            "select leasehold.report_unkillable($1, $2, $3, $4, $5)",
            *self.me,
            run["run_id"],
            run["run_token"],
            json.dumps(facts),
        )

    async def expire(self):
        rows = await self.sql.fetch("select * from leasehold.expire_queued($1, $2)", *self.me)
        return [row[0] for row in rows]

    async def finish(self, run, outcome="succeeded", reason=None, message=None, exit_code=None, result=None, sql=None):
        return await (sql or self.sql).fetchrow(
            "select * from leasehold.finish_run($1, $2, $3, $4, $5, $6, $7, exit_code => $8, result => $9)",
            *self.me,
            run["run_id"],
            run["run_token"],
            outcome,
            reason,
            message,
            exit_code,
            result,
        )

    async def fail(self, run, **more):
        return await self.finish(run, "failed", "exit_code", exit_code=3, **more)

    async def adopt(self, kept=(), lease=LEASE):
        rows = await self.sql.fetch(
            "select * from leasehold.adopt($1, $2, $3, $4, $5)",
            *self.me,
            ids(kept),
            [run["run_token"] for run in kept],
            lease,
        )
        return sorted((row["what"], row["run_id"]) for row in rows)

    async def watch(self):
        rows = await self.sql.fetch("select * from leasehold.watch_workers()")
        return {row["worker"]: (row["renewals"], row["expired"]) for row in rows}

    async def reap(self, seen=None):
        """Reap whoever is expired and still at the number of renewals seen (default: looked up just now)."""
        seen = seen if seen is not None else await self.watch()
        suspects = [(worker, renewals) for worker, (renewals, expired) in seen.items() if expired]
        return await self.sql.fetch(
            "select * from leasehold.reap($1, $2, $3, $4)",
            *self.me,
            [worker for worker, _ in suspects],
            [renewals for _, renewals in suspects],
        )

    async def deregister(self):
        await self.sql.execute("select leasehold.deregister_worker($1, $2)", *self.me)

    async def next_due(self):
        return await self.sql.fetchval("select leasehold.next_due($1)", self.id)

    async def say(self, *words):
        """append_events of (run, mark, message); answers the refused run ids."""
        return [
            row[0]
            for row in await self.sql.fetch(
                "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
                [run["run_id"] for run, _, _ in words],
                [run["run_token"] for run, _, _ in words],
                [mark for _, mark, _ in words],
                ["message"] * len(words),
                ["info"] * len(words),
                [None] * len(words),
                [message for _, _, message in words],
                [None] * len(words),
            )
        ]

    async def ship(self, *chunks, sql=None):
        """append_output of (run, stream, offset, bytes); answers the refused run ids."""
        return [
            row[0]
            for row in await (sql or self.sql).fetch(
                "select * from leasehold.append_output($1, $2, $3, $4, $5)",
                [c[0]["run_id"] for c in chunks],
                [c[0]["run_token"] for c in chunks],
                [c[1] for c in chunks],
                [c[2] for c in chunks],
                [c[3] for c in chunks],
            )
        ]

    async def trim(self, *ranges, sql=None):
        """trim_output of (run, stream, start, end); answers the refused run ids."""
        return [
            row[0]
            for row in await (sql or self.sql).fetch(
                "select * from leasehold.trim_output($1, $2, $3, $4, $5)",
                [r[0]["run_id"] for r in ranges],
                [r[0]["run_token"] for r in ranges],
                [r[1] for r in ranges],
                [r[2] for r in ranges],
                [r[3] for r in ranges],
            )
        ]

    async def checkpoint(self, *pairs):
        """save_checkpoints of (run, checkpoint); answers the refused run ids."""
        return [
            row[0]
            for row in await self.sql.fetch(
                "select * from leasehold.save_checkpoints($1, $2, $3)",
                [run["run_id"] for run, _ in pairs],
                [run["run_token"] for run, _ in pairs],
                [json.dumps(checkpoint) for _, checkpoint in pairs],
            )
        ]


def ids(runs):
    return [run if isinstance(run, int) else run["run_id"] for run in runs]


async def register(
    sql, instance="alpha", keeper="keeper-1", boot="boot-1", queues=None, lease=LEASE, capacity=100, host="host"
):
    row = await sql.fetchrow(
        "select * from leasehold.register_worker($1, $7, $2, $3, '0.1', $4, $5, $6)",
        instance,
        boot,
        keeper,
        capacity,
        queues,
        lease,
        host,
    )
    return Worker(sql, row, keeper)


def as_user(dsn, user, password=None):
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    secret = f":{password}" if password else ""
    return urlunsplit(parts._replace(netloc=f"{user}{secret}@{place}"))
