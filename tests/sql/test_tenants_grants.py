"""Who may see and do what: tenants by login, four roles, no way around the functions."""

import pytest

WRITES = [
    "update leasehold.jobs set status = 'running'",
    "update leasehold.jobs set prompt = 'x'",
    "delete from leasehold.jobs",
    "insert into leasehold.events (job_id, seq, tenant, kind) values (1, 9, 'default', 'x')",
    "update leasehold.heads set seq = 0",
    "insert into leasehold.runs (job_id) values (1)",
    "update leasehold.workers set renewals = 0",
    "delete from leasehold.arrivals",
    "select setval('leasehold.bell', 1)",
    "truncate leasehold.events",
    "update leasehold.transitions set actor = ''",
    "update leasehold.reasons set uses_attempt = false",
    "delete from leasehold.migrations",
]
WORKERS_ONLY = [
    "select leasehold.register_worker('i', 'h', 'b', 'k', '1', 1, null, '1 s')",
    "select leasehold.claim(1, gen_random_uuid(), 1)",
    "select leasehold.renew(1, gen_random_uuid(), '{}', '1 s')",
    "select leasehold.finish_run(1, gen_random_uuid(), 1, gen_random_uuid(), 'succeeded')",
    "select leasehold.listen_again()",
    "select leasehold.append_events('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
]
NOBODY = [
    "select leasehold.end_run('finish', null, 'failed', 'exit_code')",
    "select leasehold.note(1, 'default', null, 'x')",
    "select leasehold.open_runs(1, '{1}')",
    "select leasehold.promote('default', 'k')",
    "select leasehold.settle_late(null, 'a', 'b', 'c', 1, 1, null)",
    "select leasehold.may_act_for('acme')",
]


@pytest.mark.rule("S5", "X9")
@pytest.mark.parametrize("role", ["producer", "reader", "worker", "admin"])
async def test_nobody_writes_past_the_functions(login, fixer, job, refused, role):
    await job()
    person = await login(f"leasehold_{role}")
    for statement in WRITES + NOBODY:
        async with refused("42501", hint=False):
            await person.execute(statement)


@pytest.mark.rule("S41")
@pytest.mark.parametrize("role", ["producer", "reader", "admin"])
async def test_only_workers_call_the_workers_functions(login, refused, role):
    person = await login(f"leasehold_{role}")
    for statement in WORKERS_ONLY:
        async with refused("42501", hint=False):
            await person.execute(statement)


@pytest.mark.parametrize("role", ["producer", "reader", "worker"])
async def test_only_administrators_write_agents(login, fixer, refused, role):
    person = await login(f"leasehold_{role}")
    for statement in (
        "insert into leasehold.agents (name, command) values ('x', '{true}')",
        "update leasehold.agents set command = '{rm,-rf,/}'",
        "select leasehold.pause_agent('fixer')",
        "insert into leasehold.tenant_logins (login, tenant) values (current_user, 'acme')",
        "update leasehold.tenants set max_running = 100",
    ):
        async with refused("42501", hint=False):
            await person.execute(statement)


async def test_producers_do_not_see_the_environment_of_agents(login, fixer, refused):
    producer = await login("leasehold_producer")
    assert await producer.fetchval("select name from leasehold.agents") == "fixer"
    async with refused("42501", hint=False):
        await producer.fetch("select env from leasehold.agents")


@pytest.mark.rule("X7")
async def test_a_reader_reads_and_does_nothing_else(login, fixer, job, refused, eventually):
    born, reader = await job(), await login("leasehold_reader")
    assert await reader.fetchval("select count(*) from leasehold.job_overview") == 1
    assert await reader.fetchval("select queued from leasehold.queue_stats") == 1
    await eventually(reader, "select kind from leasehold.changes()", expected="queued")
    for statement in (
        "insert into leasehold.jobs (agent, prompt) values ('fixer', 'x')",
        f"select leasehold.cancel({born})",
        "select leasehold.enqueue('fixer', 'x')",
    ):
        async with refused("42501", hint=False):
            await reader.execute(statement)


async def test_a_login_without_a_row_belongs_to_default(login, fixer, job, look):
    producer = await login("leasehold_producer")
    assert (await look(await job(producer)))["tenant"] == "default"
    assert await producer.fetchval("select leasehold.my_tenants()") == ["default"]


@pytest.mark.rule("S35", "S45", "S111", "AW34", "AW35", "PW12", "OW18", "X9")
async def test_tenants_see_and_touch_only_their_own(login, worker, job, look, refused, eventually):
    acme, globex = await login("leasehold_producer", "acme"), await login("leasehold_producer", "globex")
    ours, theirs = await job(acme), await job(globex)
    assert ((await look(ours))["tenant"], (await look(theirs))["tenant"]) == ("acme", "globex")
    run = await worker.claim_job(ours)
    await worker.ship((run, "stdout", 0, b"secret"))
    for what in ("jobs", "runs", "events", "output", "job_overview", "changes()"):
        assert await globex.fetchval(f"select count(*) from leasehold.{what} x where tenant = 'acme'") == 0
        await eventually(acme, f"select count(*) > 0 from leasehold.{what} x where tenant = 'acme'", expected=True)
    assert await globex.fetchval("select count(*) from leasehold.queue_stats where tenant <> 'globex'") == 0
    async with refused("LH023", f"there is no job {ours}"):
        await globex.execute(f"select leasehold.cancel({ours})")
    async with refused("LH023"):
        await globex.execute(f"select leasehold.retry({ours})")
    async with refused("LH030"):
        await job(globex, tenant="acme")
    async with refused("LH030"):
        await globex.execute("select leasehold.enqueue('fixer', 'x', tenant => 'acme')")
    assert await acme.fetchval(f"select leasehold.cancel({ours})") == "requested"


async def test_a_login_of_two_tenants_has_a_default_and_may_name_the_other(login, fixer, job, look, sql):
    both = await login("leasehold_producer", "acme", "globex")
    await sql.execute("update leasehold.tenant_logins set is_default = true where tenant = 'globex'")
    assert (await look(await job(both)))["tenant"] == "globex"
    assert (await look(await job(both, tenant="acme")))["tenant"] == "acme"
    assert await both.fetchval("select count(*) from leasehold.jobs") == 2


@pytest.mark.rule("AW34")
async def test_the_same_idempotency_key_of_others_is_not_visible(login, fixer, job):
    acme, globex = await login("leasehold_producer", "acme"), await login("leasehold_producer", "globex")
    ask = "select disposition from leasehold.enqueue('fixer', $1, idempotency_key => 'k')"
    assert [await acme.fetchval(ask, "a"), await globex.fetchval(ask, "b")] == ["accepted", "accepted"]


async def test_a_setting_cannot_change_the_tenant(login, fixer, job, refused):
    acme = await login("leasehold_producer", "acme")
    await acme.execute("set leasehold.tenant = 'globex'")
    assert (
        await acme.fetchval("insert into leasehold.jobs (agent, prompt) values ('fixer', 'x') returning tenant")
        == "acme"
    )
    async with refused("42501", hint=False):  # tampering in the middle of the statement meets the policy
        await acme.execute(
            "insert into leasehold.jobs (agent, prompt) select 'fixer', set_config('leasehold.tenant', 'globex', true)"
        )


async def test_changing_the_role_does_not_change_the_tenant(login, fixer, job, look):
    acme = await login("leasehold_producer", "acme")
    await acme.execute("set role leasehold_producer")
    assert (await look(await job(acme)))["tenant"] == "acme"


async def test_an_administrator_sees_all_tenants_and_acts_for_them(login, fixer, job, sql):
    born = await job(tenant="acme")
    admin = await login("leasehold_admin")
    assert await admin.fetchval("select count(*) from leasehold.jobs") == 1
    assert await admin.fetchval("select leasehold.cancel($1)", born) == "cancelled"
    await job(admin, tenant="globex")


@pytest.mark.rule("S34")
async def test_new_tables_and_functions_are_closed_to_the_public(sql):
    open_functions = await sql.fetch("""
        select p.proname from pg_proc p where p.pronamespace = 'leasehold'::regnamespace
           and has_function_privilege('public', p.oid, 'execute')""")
    assert open_functions == []
    assert (
        await sql.fetch("""
        select c.relname from pg_class c where c.relnamespace = 'leasehold'::regnamespace and c.relkind in ('r', 'v', 'S')
           and has_table_privilege('public', c.oid, 'select')""")
        == []
    )


async def test_every_definer_function_fixes_its_search_path(sql):
    assert (
        await sql.fetch("""
        select p.proname from pg_proc p where p.pronamespace = 'leasehold'::regnamespace and p.prosecdef
           and not exists (select from unnest(p.proconfig) c where c like 'search_path=pg_catalog, leasehold, pg_temp')""")
        == []
    )
