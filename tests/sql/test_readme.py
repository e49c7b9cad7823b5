"""sql/README.md is true: every example runs, every row of its error tables is refused in these words, and nothing is missing."""

import re
from pathlib import Path

import asyncpg
import pytest
from leasehold.db.migrate import sql_home

README = (sql_home() / "README.md").read_text()
PLAYERS = {"$me": 1, "$other": 2, "$closed": 3}


def tables(marker):
    """The rows of the table under `<!-- marker: name -->`, by name."""
    for found in re.finditer(rf"<!-- {marker}(?:: (\w+))? -->\n+((?:\|.*\n)+)", README):
        lines = found[2].splitlines()[2:]
        yield found[1], [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


ERRORS = [(who, *row) for who, rows in tables("errors") for row in rows]


@pytest.fixture
async def world(sql, fixer, hire, job):
    """Job 1 is queued under the key pr-17, 2 runs, 3 has succeeded, 4 was cancelled; worker 1 has run 1 (live) and 2 (ended)."""
    await job(prompt="Look at pull request 17", idempotency_key="pr-17")
    worker, other, closed = await hire(), await hire(instance="beta"), await hire(instance="gamma")
    await closed.deregister()
    for _ in range(3):
        await job(priority=9)
    [live, ended] = await worker.claim(2)
    await worker.finish(ended)
    await sql.execute("select leasehold.cancel(4)")
    players = {name: f"{row.id}, '{row.token}'" for name, row in zip(PLAYERS, (worker, other, closed), strict=True)}
    players |= {
        f"${name}": f"{run['run_id']}, '{run['run_token']}'" for name, run in (("live", live), ("ended", ended))
    }
    assert (live["job_id"], ended["job_id"]) == (2, 3)
    return players


@pytest.fixture
async def speaker(request, login, sql, connect):
    """Whoever speaks in a table; an administrator's rows that need a superuser say so."""

    async def one(who, what):
        if "superuser" in what:
            return await connect()
        return await login({"administrator": "leasehold_admin"}.get(who, f"leasehold_{who}"))

    return one


async def refusal(connection, statement, players):
    for name, value in players.items():
        statement = statement.replace(name, value)
    with pytest.raises(asyncpg.PostgresError) as error:
        await connection.execute(statement)
    if "BEGIN" in statement:
        await connection.execute("ROLLBACK")
    return error.value


@pytest.mark.rule("A6", "A19", "X2")
@pytest.mark.parametrize(
    ("who", "what", "code", "message", "hint"), ERRORS, ids=[f"{row[0]}-{row[2]}-{n}" for n, row in enumerate(ERRORS)]
)
async def test_every_row_of_the_error_tables(sql, world, speaker, refused, who, what, code, message, hint):
    told, statement = re.fullmatch(r"(.*): `(.*)`", what).groups()
    connection = await speaker(who, told)
    async with refused(code, hint=False) as seen:
        raise await refusal(connection, statement, world)
    words = str(seen.error).splitlines()[0].replace(await connection.fetchval("select session_user"), "acme_app")
    assert words == message
    assert (seen.error.hint or "") == hint


@pytest.mark.rule("A6")
async def test_every_sqlstate_of_ours_is_in_the_readme():
    used = {code for file in Path(sql_home()).rglob("*.sql") for code in re.findall(r"\bLH\d{3}\b", file.read_text())}
    assert used - set(re.findall(r"\bLH\d{3}\b", README)) <= {"LH000"}, "LH000 is the class of them all"


async def test_every_example_runs(sql):
    examples = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    assert len(examples) > 10
    try:
        for example in examples:
            await sql.execute(example)
        assert await sql.fetchval("select count(*) from leasehold.jobs where idempotency_key = 'pr-17'") == 1
        assert await sql.fetchval("select count(*) from leasehold.jobs where concurrency_key = 'pr-9'") == 1
    finally:
        await sql.execute("drop role if exists acme_app")


THEN = {"again": "again at once", "backoff": "again after a backoff", "stop": "ends"}


async def test_the_reasons_are_the_ones_of_the_database(sql):
    [(_, rows)] = tables("reasons")
    expected = await sql.fetch("select *, extract(epoch from park) / 60 as minutes from leasehold.reasons")
    assert sorted(map(tuple, rows)) == sorted(
        (
            f"`{row['reason']}`",
            row["outcome"],
            "yes" if row["uses_attempt"] else "no",
            THEN.get(row["follows"])
            or f"parks {row['minutes']:.0f} minute{'s' if row['minutes'] > 1 else ''}, then again",
            row["advice"],
        )
        for row in expected
    )


async def test_every_function_for_workers_is_named(sql):
    functions = await sql.fetch("""
        select p.proname from pg_proc p where p.pronamespace = 'leasehold'::regnamespace
           and has_function_privilege('leasehold_worker', p.oid, 'execute')""")
    quiet = {"period_start", "period_end", "my_tenants", "my_default_tenant", "cursor_epoch", "clock", "changes", "why"}
    quiet |= {
        "active_summary",
        "mark_thread_read",
        "list_threads",
        "thread_changes",
        "cursor_parts",
        "page_size",
        "list_jobs",
    }
    quiet |= {"list_events", "list_thread_events", "queue_summary", "queue_top"}
    quiet |= {"list_messages", "list_thread_messages", "message_changes", "list_session_events", "mark_job_read"}
    quiet |= {"check_workspace_path"}
    assert {row["proname"] for row in functions} - quiet == {
        name
        for name in re.findall(r"`(\w+)\(", README.split("For whoever writes a worker")[1])
        if not name.startswith("select")
    }
