"""Migrations: applied once, whoever comes and however many; edited, newer and blocked ones are handled in plain words."""

import asyncio
import shutil

import asyncpg
import pytest
from leasehold.db import migrate as migrations
from leasehold.db.migrate import check_schema, migrate, sql_home
from leasehold.errors import SchemaChanged, SchemaNewer, SchemaOutdated


@pytest.fixture
async def empty(empty_dsn):
    connection = await asyncpg.connect(empty_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def home(tmp_path):
    """A copy of our SQL that a test may edit."""
    return shutil.copytree(sql_home(), tmp_path / "sql")


async def test_the_sql_is_where_it_should_be():
    assert (sql_home() / "migrations" / "0001_schema_clock_roles.sql").is_file()


@pytest.mark.rule("G1", "G3", "O8", "O31", "X32")
async def test_from_nothing_and_a_second_start_is_a_no_op(empty):
    applied = await migrate(empty)
    assert applied[0] == "migrations/0001_schema_clock_roles"
    assert applied[-2:] == ["functions/triggers", "functions/grants"]
    before = await empty.fetch(
        "select oid, xmin::text from pg_proc where pronamespace = 'leasehold'::regnamespace order by 1"
    )
    assert await migrate(empty) == []
    assert await check_schema(empty) is None
    assert before == await empty.fetch(
        "select oid, xmin::text from pg_proc where pronamespace = 'leasehold'::regnamespace order by 1"
    )


@pytest.mark.rule("G2", "GW9", "X32")
@pytest.mark.race
async def test_eight_starters_at_once_apply_everything_once(empty, empty_dsn):
    connections = [await asyncpg.connect(empty_dsn) for _ in range(8)]
    try:
        answers = await asyncio.gather(*(migrate(connection) for connection in connections))
    finally:
        for connection in connections:
            await connection.close()
    assert sum(bool(answer) for answer in answers) == 1
    assert await empty.fetchval("select count(*) from leasehold.migrations") == len(
        list((sql_home() / "migrations").glob("*.sql"))
    )


@pytest.mark.rule("G1", "G4", "X32")
async def test_an_edited_migration_is_refused(sql, home):
    file = home / "migrations" / "0003_jobs_heads_events.sql"
    file.write_text(file.read_text() + "-- a harmless comment\n")
    for look in (migrate, check_schema):
        with pytest.raises(SchemaChanged, match="0003_jobs_heads_events was edited"):
            await look(sql, home)


@pytest.mark.rule("GW11", "X32")
async def test_a_newer_schema_is_refused_by_migrate_and_borne_by_a_daemon_unless_it_breaks(sql, home):
    (home / "migrations" / "0900_later.sql").write_text("create table leasehold.later (id int);")
    assert await migrate(sql, home) == ["migrations/0900_later", "functions/grants"]
    with pytest.raises(SchemaNewer, match="0900_later"):
        await migrate(sql)
    assert "0900_later" in await check_schema(sql)
    (home / "migrations" / "0901_breaking.sql").write_text("-- breaking\ncreate table leasehold.breaking (id int);")
    await migrate(sql, home)
    with pytest.raises(SchemaNewer, match="0901_breaking"):
        await check_schema(sql)


@pytest.mark.rule("G5")
async def test_an_older_or_missing_schema_is_outdated(sql, empty, home):
    with pytest.raises(SchemaOutdated, match="no Leasehold schema"):
        await check_schema(empty)
    (home / "migrations" / "0900_later.sql").write_text("select 1;")
    with pytest.raises(SchemaOutdated, match="0900_later"):
        await check_schema(sql, home)


@pytest.mark.rule("GW10")
async def test_a_changed_function_is_applied_again_with_the_grants_and_nothing_else(sql, home):
    file = home / "functions" / "output.sql"
    file.write_text(
        file.read_text()
        + "\ncreate or replace function leasehold.brand_new() returns int language sql as 'select 1';\n"
    )
    assert "functions/output" in await check_schema(sql, home)
    assert await migrate(sql, home) == ["functions/output", "functions/grants"]
    assert await migrate(sql, home) == []
    assert not await sql.fetchval("select has_function_privilege('public', 'leasehold.brand_new()', 'execute')")


@pytest.mark.rule("G5")
async def test_a_daemon_with_the_workers_role_can_check_but_not_migrate(login, home):
    worker = await login("leasehold_worker")
    assert await check_schema(worker) is None
    (home / "migrations" / "0900_later.sql").write_text("create table leasehold.later (id int);")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrate(worker, home)


async def test_a_migration_that_fails_leaves_nothing(sql, home):
    (home / "migrations" / "0900_bad.sql").write_text("create table leasehold.half (id int); select 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(sql, home)
    assert await sql.fetchval("select to_regclass('leasehold.half')") is None
    assert await check_schema(sql) is None


@pytest.mark.rule("GW13")
@pytest.mark.race
async def test_behind_an_open_transaction_it_waits_in_short_turns_and_holds_up_nobody(sql, fixer, job, connect, home):
    (home / "migrations" / "0900_column.sql").write_text("alter table leasehold.jobs add column extra text;")
    producer, other, migrator = await connect(), await connect(), await connect()
    async with producer.transaction():
        await job(producer)
        waiting = asyncio.create_task(migrate(migrator, home))
        for _ in range(8):
            await asyncio.wait_for(job(other), 2)
            await asyncio.sleep(0.05)
        assert not waiting.done()
    assert "migrations/0900_column" in await waiting
    await other.execute("insert into leasehold.jobs (agent, prompt, extra) values ('fixer', 'x', 'y')")


@pytest.mark.race
async def test_it_gives_up_in_the_end(sql, fixer, job, connect, home, monkeypatch):
    monkeypatch.setattr(migrations, "PATIENCE", 0.5)
    (home / "migrations" / "0900_column.sql").write_text("alter table leasehold.jobs add column extra text;")
    producer, migrator = await connect(), await connect()
    async with producer.transaction():
        await job(producer)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await migrate(migrator, home)
    assert await check_schema(sql) is None


@pytest.mark.race
async def test_a_worker_keeps_working_while_functions_are_replaced(sql, hire, fixer, job, connect, home):
    worker, migrator = await hire(), await connect()
    for turn in range(3):
        for file in (home / "functions").glob("*.sql"):
            file.write_text(file.read_text() + f"-- {turn}\n")
        changing = asyncio.create_task(migrate(migrator, home))
        while not changing.done():
            await job()
            for run in await worker.claim():
                await worker.finish(run)
        assert len(await changing) > 10


async def test_a_login_that_may_not_create_roles_is_told_what_to_do(login, refused):
    text = (sql_home() / "migrations" / "0001_schema_clock_roles.sql").read_text()
    block = text[text.index("do $$") : text.index("-- stable, so")].replace(
        "'leasehold_admin',", "'leasehold_nobody_has_this',"
    )
    poor = await login("leasehold_reader")
    async with refused("LH050", 'the role "leasehold_nobody_has_this" is missing'):
        await poor.execute(block)


@pytest.mark.rule("GW9")
@pytest.mark.race
async def test_two_databases_of_one_cluster_can_be_migrated_at_once(server, empty, empty_dsn, dsn):
    """Roles belong to the cluster: whoever creates them second finds them there. Played with roles of another name."""
    text = (sql_home() / "migrations" / "0001_schema_clock_roles.sql").read_text()
    block = text[text.index("do $$") : text.index("-- stable, so")].replace("leasehold_", "lh_test_twice_")
    other = await asyncpg.connect(dsn)
    try:
        for _ in range(5):
            one = empty.transaction()
            await one.start()
            await empty.execute(block)
            waiting = asyncio.create_task(other.execute(block))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await one.commit()
            await waiting
            await empty.execute(
                "drop role lh_test_twice_admin, lh_test_twice_worker, lh_test_twice_producer, lh_test_twice_reader"
            )
    finally:
        await other.close()


async def test_an_ordinary_owner_can_migrate_and_use_everything(sql, empty, empty_dsn):
    await empty.execute("create role lh_test_owner login password 'x' createrole")
    try:
        database = await empty.fetchval("select current_database()")
        await empty.execute(f"grant create on database {database} to lh_test_owner")
        owner = await asyncpg.connect(empty_dsn, user="lh_test_owner", password="x")
        try:
            await migrate(owner)
            await owner.execute("insert into leasehold.agents (name, command) values ('fixer', '{true}')")
            await owner.execute("insert into leasehold.jobs (agent, prompt) values ('fixer', 'x')")
            row = await owner.fetchrow(
                "select * from leasehold.register_worker('i', 'h', 'b', 'k', '1', 1, null, '1 min')"
            )
            [run] = await owner.fetch("select * from leasehold.claim($1, $2, 1)", row["worker"], row["token"])
            assert (
                await owner.fetchval(
                    "select job_status from leasehold.finish_run($1, $2, $3, $4, 'succeeded')",
                    row["worker"], row["token"], run["run_id"], run["run_token"],
                )
                == "succeeded"
            )  # fmt: skip
        finally:
            await owner.close()
    finally:
        await empty.execute("drop owned by lh_test_owner cascade")
        await empty.execute("drop role lh_test_owner")
