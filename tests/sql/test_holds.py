"""Holds: what they cover does not start, whoever asks; it starts again when they are lifted or end, staggered if so wished."""

from datetime import timedelta

import pytest

SECOND = timedelta(seconds=1)

COVERING = [
    ("all", ""),
    ("tenant", "acme"),
    ("queue", "slow"),
    ("agent", "fixer"),
    ("account", "fixer"),
    ("host", "host"),
]


@pytest.mark.rule("PW15", "SW35")
@pytest.mark.parametrize(("scope", "name"), COVERING)
async def test_what_a_hold_covers_does_not_start_until_it_is_lifted(sql, worker, job, scope, name, sane):
    born = await job(tenant="acme", queue="slow")
    await sql.execute("select leasehold.hold($1, $2, 'maintenance')", scope, name)
    assert await worker.claim() == []
    assert await sql.fetchval("select leasehold.lift($1, $2)", scope, name) == 1
    assert [run["job_id"] for run in await worker.claim()] == [born]
    await sane()


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("tenant", "other"),
        ("queue", "other"),
        ("agent", "other"),
        ("account", "other"),
        ("host", "other"),
        ("repository", "acme/x"),
    ],
)
async def test_a_hold_covers_nothing_else(sql, worker, job, scope, name):
    await job(tenant="acme", queue="slow")
    await sql.execute("select leasehold.hold($1, $2, 'maintenance')", scope, name)
    assert len(await worker.claim()) == 1


async def test_an_account_is_held_for_all_its_agents(sql, worker, job):
    await sql.execute("""
        insert into leasehold.agents (name, command, account) values ('one', '{true}', 'shared'), ('two', '{true}', 'shared');
        select leasehold.hold('account', 'shared', 'quota')""")
    await job(agent="one")
    await job(agent="two")
    free = await job()
    assert [run["job_id"] for run in await worker.claim()] == [free]


async def test_each_reason_must_be_lifted(sql, worker, job):
    await job()
    await sql.execute("select leasehold.hold('agent', ' FIXER ', r) from unnest('{a,b}'::text[]) r")
    assert await sql.fetchval("select leasehold.lift('agent', 'fixer', 'a')") == 1
    assert await worker.claim() == []
    assert await sql.fetchval("select leasehold.lift('agent', 'fixer', 'a')") == 0
    assert await sql.fetchval("select leasehold.lift('agent', 'fixer')") == 1
    assert len(await worker.claim()) == 1


async def test_a_hold_ends_by_itself_and_the_worker_knows_when(sql, worker, job, clock):
    await job()
    await sql.execute("select leasehold.hold('queue', 'default', 'maintenance', $1)", clock.now + 30 * SECOND)
    assert await worker.claim() == []
    assert await worker.next_due() == 30 * SECOND
    await clock.forward(seconds=30)
    assert len(await worker.claim()) == 1
    assert await sql.fetchval("select count(*) from leasehold.holds") == 0
    assert await worker.next_due() is None


@pytest.mark.parametrize(("scope", "name"), COVERING)
async def test_after_its_end_a_staggered_hold_lets_one_start_through_at_a_time(
    sql, worker, hire, job, clock, scope, name
):
    await worker.renew(lease=timedelta(hours=1))
    for _ in range(6):
        await job(tenant="acme", queue="slow")
    await sql.execute(
        "select leasehold.hold($1, $2, 'quota', $3, stagger => '2 seconds')", scope, name, clock.now + 30 * SECOND
    )
    assert await worker.claim() == []
    await clock.forward(seconds=30)
    assert len(await worker.claim()) == 1
    assert await (await hire(instance="beta")).claim() == []
    assert await worker.next_due() == 2 * SECOND
    await clock.forward(seconds=1)
    assert await worker.claim() == []
    await clock.forward(seconds=1)
    assert len(await worker.claim()) == 1
    await clock.forward(seconds=6)
    assert len(await worker.claim()) == 3
    await clock.forward(seconds=600)
    assert len(await worker.claim()) == 1
    assert await sql.fetchval("select count(*) from leasehold.holds") == 0


async def test_a_stagger_does_not_slow_down_what_it_does_not_cover(sql, worker, job, clock):
    await sql.execute("select leasehold.hold('tenant', 'acme', 'quota', $1, stagger => '2 seconds')", clock.now)
    for _ in range(3):
        await job(tenant="acme")
        await job(tenant="other")
    runs = [run["job_id"] for run in await worker.claim()]
    tenants = await sql.fetch("select tenant, count(*) from leasehold.jobs where id = any ($1) group by 1", runs)
    assert dict(tenants) == {"acme": 1, "other": 3}


PAUSES = [("queue", "'slow'"), ("tenant", "'acme'"), ("host", "'host'"), ("all", "")]


@pytest.mark.rule("PW15", "SW35")
@pytest.mark.parametrize(("what", "name"), PAUSES)
async def test_a_pause_is_a_hold_and_resume_lifts_only_that(sql, worker, job, what, name):
    await job(tenant="acme", queue="slow")
    reason = f"{name + ', ' if name else ''}'the moon is full'"
    await sql.execute(f"select leasehold.pause_{what}({reason})")
    assert await sql.fetchval("select reason || ': ' || message from leasehold.holds") == "paused: the moon is full"
    assert await worker.claim() == []
    await sql.execute(f"select leasehold.hold('{what}', {name or repr('')}, 'other')")
    await sql.execute(f"select leasehold.resume_{what}({name})")
    assert await worker.claim() == []
    await sql.execute(f"select leasehold.lift('{what}', {name or repr('')}, 'other')")
    assert len(await worker.claim()) == 1


@pytest.mark.parametrize("what", ["queue", "tenant"])
async def test_resume_clears_the_column_as_well(sql, worker, job, what):
    await job(tenant="acme", queue="slow")
    name = {"queue": "slow", "tenant": "acme"}[what]
    await sql.execute(f"insert into leasehold.{what}s (name, paused) values ('{name}', true)")
    assert await worker.claim() == []
    await sql.execute(f"select leasehold.resume_{what}('{name}')")
    assert len(await worker.claim()) == 1


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("hold('galaxy', 'x', 'r')", "LH070", 'there is no scope "galaxy"'),
        ("hold(null, 'x', 'r')", "LH070", "there is no scope NULL"),
        ("hold('all', 'x', 'r')", "LH071", "a hold on all has a name"),
        ("hold('queue', ' ', 'r')", "LH071", "a hold on queue has no name"),
        ("hold('queue', 'x', ' ')", "LH071", "it has no reason"),
        ("hold('queue', 'x', 'r', stagger => '1 second')", "LH071", "a stagger but no end"),
        ("hold('queue', 'x', 'r', '2030-01-01', stagger => '0')", "LH071", "stagger is not above 0"),
        ("hold('queue', 'x', 'r', 'infinity')", "LH071", "not a moment in time"),
        ("lift('galaxy', 'x')", "LH070", 'there is no scope "galaxy"'),
    ],
)
async def test_a_hold_that_makes_no_sense_is_refused(sql, fixer, clock, refused, call, code, says):
    async with refused(code, says):
        await sql.execute(f"select leasehold.{call}")


async def test_an_open_transaction_that_holds_or_lifts_does_not_block_the_claim(sql, worker, job, connect, clock):
    await sql.execute("select leasehold.hold('tenant', 'acme', 'quota', $1, stagger => '2 seconds')", clock.now)
    await job(tenant="acme")
    user = await connect()
    async with user.transaction():
        await user.execute("select leasehold.hold('tenant', 'acme', 'quota')")
        await user.execute("select leasehold.hold('queue', 'default', 'paused')")
        await sql.execute("set statement_timeout = '2s'")
        assert len(await worker.claim()) == 1


async def test_why_names_every_hold_with_the_statement_that_lifts_it(sql, worker, job, clock):
    born = await job(tenant="acme")
    await sql.execute("set timezone = 'UTC'")
    await sql.execute("select leasehold.pause_all('moving house')")
    await sql.execute("select leasehold.hold('tenant', 'acme', 'budget:day', $1)", clock.now + 60 * SECOND)
    await sql.execute("select leasehold.hold('queue', 'default', 'quota', $1, stagger => '2 seconds')", clock.now)
    await sql.execute("update leasehold.holds set released = 1 where scope = 'queue'")
    said = [row[0] for row in await sql.fetch("select * from leasehold.why($1)", born)]
    assert [line.split("SELECT")[0] for line in said if "held" in line] == [
        'Everything is held until that is lifted (paused: "moving house"): ',
        'Its queue "default" is held no more, but one job starts every 2 s (quota): ',
        'Its tenant "acme" is held until 2030-01-01 12:01:00 UTC (in 1 min) (budget:day): ',
    ]
    for line in said:
        if "lift(" in line:
            await sql.execute(line[line.index("SELECT") :])
    assert len(await worker.claim()) == 1


async def test_why_names_the_pause_of_a_host_that_has_workers(sql, worker, job):
    born = await job()
    await sql.execute("select leasehold.pause_host('other')")
    said = [row["why"] for row in await sql.fetch("select why from leasehold.why($1) why", born)]
    assert not any("other" in line for line in said)
    await sql.execute("select leasehold.pause_host('host', 'new disk')")
    [line] = [
        row["why"] for row in await sql.fetch("select why from leasehold.why($1) why", born) if "new disk" in row["why"]
    ]
    assert line.startswith('The host "host" is held until that is lifted')
    await sql.execute(line.partition("): ")[2])
    assert len(await worker.claim()) == 1
