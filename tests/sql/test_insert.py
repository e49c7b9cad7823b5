"""The insert surface: what a bare INSERT gives, and what it refuses, with a message that helps."""

import asyncpg
import pytest


@pytest.mark.rule("S62", "S63", "S65", "A25", "A28", "P36", "O9", "O34", "X1")
async def test_a_bare_insert_from_psql_is_a_complete_job(sql, fixer, clock, job, look, story):
    row = await look(await job(agent=" Fixer ", prompt="Make the tests pass"))
    assert (row["agent"], row["tenant"], row["queue"], row["kind"]) == ("fixer", "default", "default", "task")
    assert (row["status"], row["due"], row["attempts"], row["max_attempts"], row["priority"]) == (
        "queued",
        True,
        0,
        1,
        0,
    )
    assert row["run_at"] == row["created_at"] == row["updated_at"] == clock.now
    assert await story(row["id"]) == ["queued"]
    assert await sql.fetchval("select count(*) from leasehold.heads where job_id = $1", row["id"]) == 1


@pytest.mark.rule("G36")
async def test_explicit_nulls_mean_the_default(fixer, job, look):
    row = await look(
        await job(tenant=None, queue=None, kind=None, payload=None, labels=None, priority=None, max_attempts=None)
    )
    assert (row["tenant"], row["queue"], row["kind"], row["payload"], row["priority"]) == (
        "default",
        "default",
        "task",
        "{}",
        0,
    )


@pytest.mark.rule("S19", "S46")
async def test_blank_names_mean_the_default_and_names_are_trimmed(fixer, job, look):
    row = await look(await job(queue="  ", kind=" review ", project="  ", title=" One "))
    assert (row["queue"], row["kind"], row["project"], row["title"]) == ("default", "review", None, "One")


@pytest.mark.rule("A23", "A25", "X3")
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "running"), ("status", "cancelled"), ("status", None), ("due", False), ("lane", 7), ("attempts", 3), ("attempts", None),
        ("interruptions", 1), ("losses", 1), ("reason", "ok"), ("message", "x"), ("result", "{}"), ("request_hash", b"x"),
        ("cancel_requested_by", "me"), ("cancel_requested_reason", "me"),
    ],
)  # fmt: skip
async def test_a_client_cannot_set_what_only_functions_write(fixer, login, job, refused, column, value):
    producer = await login("leasehold_producer")
    async with refused("LH002", f"a new job cannot set {column}"):
        await job(producer, **{column: value})


@pytest.mark.rule("AW30", "GW29", "X3")
@pytest.mark.parametrize("column", ["created_at", "updated_at", "started_at", "finished_at", "cancel_requested_at"])
async def test_a_client_cannot_set_times(fixer, login, job, refused, clock, column):
    producer = await login("leasehold_producer")
    async with refused("LH002", f"a new job cannot set {column}"):
        await job(producer, **{column: clock.now})


async def test_all_columns_that_were_wrongly_set_are_named(fixer, job, refused):
    async with refused("LH002", "a new job cannot set attempts, losses, reason, status:"):
        await job(status="running", attempts=1, losses=1, reason="x")


@pytest.mark.rule("AW30", "X3")
async def test_the_id_cannot_be_chosen(fixer, login, refused):
    producer = await login("leasehold_producer")
    async with refused("428C9"):
        await producer.execute("insert into leasehold.jobs (id, agent, prompt) values (7, 'fixer', 'x')")
    async with refused("42501", hint=False):
        await producer.execute(
            "insert into leasehold.jobs (id, agent, prompt) overriding system value values (7, 'fixer', 'x')"
        )


@pytest.mark.rule("S46", "SW36", "P18", "G36", "OW19", "X2")
@pytest.mark.parametrize(
    ("code", "columns", "says"),
    [
        ("LH001", {"agent": "fixr"}, 'there is no agent "fixr"'),
        ("LH003", {"agent": None}, "a job needs an agent"),
        ("LH003", {"agent": "  "}, "a job needs an agent"),
        ("LH003", {"prompt": None}, "a job needs a prompt"),
        ("LH003", {"prompt": " \n\t "}, "a job needs a prompt"),
        ("LH004", {"prompt": "x" * 2_000_000}, "prompt has 2000000 bytes, the limit is 1048576"),
        ("LH004", {"prompt": "€" * 400_000}, "prompt has 1200000 bytes"),
        ("LH004", {"payload": '{"x": "' + "y" * 1_100_000 + '"}'}, "payload has"),
        ("LH004", {"queue": "q" * 201}, "queue has 201 bytes, the limit is 200"),
        ("LH004", {"title": "q" * 1001}, "title has 1001 bytes"),
        ("LH004", {"concurrency_key": "q" * 501}, "concurrency_key has 501 bytes"),
        ("LH004", {"idempotency_key": "q" * 501}, "idempotency_key has 501 bytes"),
        ("LH004", {"labels": '{"x": "' + "y" * 20_000 + '"}'}, "labels has"),
        ("LH005", {"payload": "3"}, "payload must be a JSON object, not a JSON number"),
        ("LH005", {"payload": "null"}, "payload must be a JSON object, not a JSON null"),
        ("LH005", {"payload": "[]"}, "not a JSON array"),
        ("LH005", {"labels": '"x"'}, "labels must be a JSON object, not a JSON string"),
        ("LH006", {"priority": -1}, "priority -1 is outside 0..1000"),
        ("LH006", {"priority": 99999}, "priority 99999 is outside 0..1000"),
        ("LH006", {"max_attempts": 0}, "max_attempts 0 is outside 1..1000"),
        ("LH006", {"max_losses": 0}, "max_losses 0 is outside 1..1000"),
        ("LH007", {"idempotency_key": " "}, "idempotency_key is blank"),
        ("LH007", {"concurrency_key": ""}, "concurrency_key is blank"),
        ("LH030", {"tenant": "globex"}, 'may not act for tenant "globex"'),
    ],
)
async def test_a_wrong_value_gets_a_message_of_ours(fixer, login, job, refused, code, columns, says):
    producer = await login("leasehold_producer")
    async with refused(code, says):
        await job(producer, **columns)


@pytest.mark.parametrize("when", ["infinity", "-infinity"])
async def test_run_at_must_be_a_moment(sql, fixer, refused, when):
    async with refused("LH007", "is not a moment in time"):
        await sql.execute(f"insert into leasehold.jobs (agent, prompt, run_at) values ('fixer', 'x', '{when}')")


async def test_what_postgres_itself_refuses_keeps_its_own_code(sql, fixer, refused):
    async with refused("22P05", hint=False):
        await sql.execute(
            """insert into leasehold.jobs (agent, prompt, payload) values ('fixer', 'x', '{"a": "\\u0000"}')"""
        )
    async with refused("22003", hint=False):
        await sql.execute("insert into leasehold.jobs (agent, prompt, priority) values ('fixer', 'x', 99999999999)")


@pytest.mark.rule("S62")
async def test_one_bad_row_of_many_leaves_nothing_behind(sql, fixer, refused):
    async with refused("LH003"):
        await sql.execute(
            "insert into leasehold.jobs (agent, prompt) select 'fixer', nullif(g, 50)::text from generate_series(1, 100) g"
        )


@pytest.mark.rule("G18", "G23", "X4")
async def test_on_conflict_do_nothing_has_no_side_effects(sql, fixer, job, refused):
    await job(idempotency_key="k")
    arrivals = await sql.fetchval("select count(*) from leasehold.arrivals")
    again = "insert into leasehold.jobs (agent, prompt, idempotency_key) values ('fixer', 'x', 'k')"
    assert await sql.execute(f"{again} on conflict do nothing") == "INSERT 0 0"
    assert await sql.fetchval("select count(*) from leasehold.arrivals") == arrivals
    async with refused("23505", hint=False):
        await sql.execute(again)


async def test_copy_works_like_insert(sql, fixer, sane):
    await sql.copy_records_to_table(
        "jobs", schema_name="leasehold", columns=["agent", "prompt"], records=[("fixer", f"n {i}") for i in range(50)]
    )
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'queued'") == 50
    await sane()


async def test_a_schema_in_front_of_ours_cannot_trick_the_triggers(sql, login, fixer, dsn, refused):
    producer = await login("leasehold_producer")
    me, database = await producer.fetchval("select session_user"), await producer.fetchval("select current_database()")
    await sql.execute(f"grant create on database {database} to {me}")
    await producer.execute("""
        create schema evil;
        create function evil.eq(text, text) returns bool language sql as 'select true';
        create operator evil.= (leftarg = text, rightarg = text, function = evil.eq);
        set search_path = evil, pg_catalog""")
    async with refused("LH001"):
        await producer.execute("insert into leasehold.jobs (agent, prompt) values ('nobody', 'x')")


@pytest.mark.rule("GW15", "X12")
async def test_the_clock_cannot_be_frozen_by_a_client(login, sql, fixer, clock):
    producer, admin = await login("leasehold_producer"), await login("leasehold_admin")
    for connection in (producer, admin):
        await connection.execute("set leasehold.now = '2030-06-01'")
    assert (await producer.fetchval("select leasehold.clock()")).year != 2030
    assert (await admin.fetchval("select leasehold.clock()")).month == 6
    created = "insert into leasehold.jobs (agent, prompt) values ('fixer', 'x') returning created_at"
    assert (await producer.fetchval(created)).year != 2030


@pytest.mark.rule("P92")
async def test_keyed_jobs_queue_behind_one_another(sql, fixer, job, look, story):
    first, second, other = (
        await job(concurrency_key="k"),
        await job(concurrency_key="k"),
        await job(concurrency_key="j"),
    )
    assert [(await look(j))["status"] for j in (first, second, other)] == ["queued", "deferred", "queued"]
    assert await story(second) == ["deferred"]


async def test_keys_of_one_statement_see_each_other(sql, fixer):
    await sql.execute(
        "insert into leasehold.jobs (agent, prompt, concurrency_key) select 'fixer', 'x', 'k' from generate_series(1, 5)"
    )
    assert dict(await sql.fetch("select status, count(*) from leasehold.jobs group by 1")) == {
        "queued": 1,
        "deferred": 4,
    }


@pytest.mark.rule("P35")
async def test_a_producer_never_waits_for_anothers_open_transaction_on_the_same_key(sql, fixer, connect, job, look):
    other = await connect()
    async with other.transaction():
        first = await job(other, concurrency_key="k")
        await sql.execute("set statement_timeout = '2s'")
        second = await job(concurrency_key="k")
        assert (await look(second))["status"] == "deferred"
    assert (await look(first))["status"] == "queued"


async def test_a_keyed_job_of_an_old_snapshot_is_born_deferred(sql, fixer, job, look):
    async with sql.transaction(isolation="repeatable_read"):
        born = await job(concurrency_key="k")
    assert (await look(born))["status"] == "deferred"


@pytest.mark.rule("P18")
async def test_agents_name_must_be_known_even_to_a_superuser(sql, fixer):
    with pytest.raises(asyncpg.PostgresError) as error:
        await sql.execute("insert into leasehold.jobs (agent, prompt) values ('nobody', 'x')")
    assert error.value.column_name == "agent"
