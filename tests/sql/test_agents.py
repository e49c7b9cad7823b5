"""Agents: what an administrator may write, pausing, and why one cannot be deleted under its jobs."""

import asyncio

import pytest


@pytest.mark.rule("S14", "P10", "P36")
async def test_a_bare_agent_from_psql(sql, login):
    admin = await login("leasehold_admin")
    await admin.execute("insert into leasehold.agents (name, adapter, command) values (' Fixer ', 'command', '{true}')")
    row = await sql.fetchrow("select * from leasehold.agents")
    assert (row["name"], row["adapter"], row["command"], row["status"], row["env"]) == (
        "fixer",
        "command",
        ["true"],
        "enabled",
        "{}",
    )
    assert (row["spawn_timeout"].seconds, row["linger_timeout"].seconds, row["idle_timeout"]) == (60, 30, None)
    assert (row["output_head"], row["output_tail"], row["output_limit"]) == (8 << 20, 1 << 20, None)
    assert row["events_limit"] == 100_000
    assert (row["retry_backoff"].seconds, row["retry_backoff_max"].seconds, row["stop_grace"].seconds) == (5, 600, 10)


@pytest.mark.rule("S20", "P11", "X2")
@pytest.mark.parametrize(
    ("code", "columns", "says"),
    [
        ("LH040", {"name": "'a b'"}, "an agent cannot be called 'a b'"),
        ("LH040", {"name": "null"}, "cannot be called NULL"),
        ("LH040", {"name": "'-x'"}, "cannot be called"),
        ("LH041", {"command": "'{}'"}, "has no command"),
        ("LH041", {"command": "null"}, "has no command"),
        ("LH041", {"command": "'{\" \"}'"}, "has no command"),
        ("LH041", {"command": "'{a,NULL}'"}, "has no command"),
        ("LH042", {"env": "'[]'"}, "it is a JSON array"),
        ("LH042", {"env": """'{"A": 1}'"""}, 'the value of "A" is a JSON number'),
        ("LH042", {"env": """'{"A B": "1"}'"""}, '"A B" is not a name of a variable'),
        ("LH042", {"env": """'{"LEASEHOLD_RUN_ID": "1"}'"""}, "is set by Leasehold"),
        ("LH043", {"workspace": "'work'"}, 'the workspace "work" is not an absolute path'),
        ("LH044", {"adapter": "'codx'"}, 'there is no adapter "codx"'),
        ("LH045", {"max_running": "-1"}, "max_running is below 0"),
        ("LH045", {"stop_grace": "'-1 s'"}, "stop_grace"),
        ("LH045", {"total_timeout": "'0'"}, "total_timeout is not above 0"),
        ("LH045", {"retry_backoff_max": "'1 s'"}, "retry_backoff_max"),
        ("LH046", {"limits": """'{"memory": 1}'"""}, 'there is no limit "memory"'),
        ("LH046", {"limits": """'{"memory_max": "2G"}'"""}, '"memory_max" is "2G"'),
        ("LH046", {"limits": """'{"cpu_weight": 10001}'"""}, '"cpu_weight" is 10001'),
        *(
            ("LH045", {name: value}, f'agent "a": {name} is ')
            for name in ("queue_timeout", "spawn_timeout", "first_output_timeout", "idle_timeout", "tool_idle_timeout", "linger_timeout", "answer_timeout")
            for value in ("'0'", "'-1 s'")
        ),
        *(
            ("LH045", {name: "'10 years 1 day'"}, "a duration is longer than 10 years")
            for name in ("queue_timeout", "idle_timeout", "total_timeout", "stop_grace", "retry_backoff_max", "answer_timeout")
        ),
        ("LH045", {"on_unanswered": "'wait'"}, "on_unanswered is not deny, cancel or ask_again"),
        ("LH045", {"while_waiting": "'free'"}, "while_waiting is not keep or release"),
        ("LH124", {"session_keep": "'10 years 1 day'"}, "session_keep is not above 0, or longer than 10 years"),
        ("LH045", {"spawn_timeout": "null"}, "spawn_timeout is missing"),
        ("LH045", {"linger_timeout": "null"}, "linger_timeout is missing"),
        ("LH045", {"output_head": "0"}, 'agent "a": output_head is missing or below 1 byte'),
        ("LH045", {"output_head": "null"}, "output_head is missing"),
        ("LH045", {"output_tail": "-1"}, "output_tail is missing or below 1 byte"),
        ("LH045", {"output_limit": "0"}, "output_limit is below 1 byte"),
        ("LH045", {"events_limit": "0"}, "events_limit is missing or below 1"),
        ("LH045", {"events_limit": "null"}, "events_limit is missing or below 1"),
        ("LH046", {"launcher": "'{NULL}'"}, "launcher"),
        ("LH046", {"limits": """'{"memory_max": 1048575}'"""}, '"memory_max" is 1048575'),
        ("LH046", {"limits": """'{"memory_max": -1}'"""}, '"memory_max" is -1'),
        ("LH046", {"limits": """'{"memory_max": null}'"""}, '"memory_max" is null'),
        ("LH046", {"limits": """'{"pids_max": 0}'"""}, '"pids_max" is 0'),
        ("LH046", {"limits": """'{"pids_max": 4194305}'"""}, '"pids_max" is 4194305'),
        ("LH046", {"limits": """'{"pids_max": 1.5}'"""}, '"pids_max" is 1.5'),
        ("LH046", {"limits": """'{"cpu_weight": true}'"""}, '"cpu_weight" is true'),
        ("LH046", {"limits": """'{"memory_max": 1e30}'"""}, '"memory_max" is 1000'),
        ("LH046", {"limits": "'[1]'"}, "it is a JSON array"),
        ("LH048", {"status": "'on'"}, 'an agent cannot be "on"'),
    ],
)  # fmt: skip
async def test_a_wrong_agent_gets_a_message_of_ours(login, refused, code, columns, says):
    admin = await login("leasehold_admin")
    columns = {"name": "'a'", "command": "'{true}'"} | columns
    async with refused(code, says):
        await admin.execute(
            f"insert into leasehold.agents ({', '.join(columns)}) values ({', '.join(columns.values())})"
        )


async def test_a_good_agent_with_everything(sql):
    await sql.execute("""
        insert into leasehold.agents (name, adapter, command, env, max_running, total_timeout, workspace, launcher, limits,
                                      queue_timeout, spawn_timeout, first_output_timeout, idle_timeout, tool_idle_timeout, linger_timeout,
                                      output_head, output_tail, output_limit)
        values ('a.b-c_1', 'command', '{python3,x.py}', '{"MODE": "fast"}', 3, '1 hour', '/srv/work', '{nice,-n,5}',
                '{"memory_max": 1000000000, "pids_max": 100, "cpu_weight": 50}',
                '1 day', '10 s', '1 min', '5 min', '30 min', '3 s', 1000, 1000, 5000000000)""")


async def test_an_agent_keeps_its_name(sql, fixer, refused):
    async with refused("LH047", 'agent "fixer" cannot be renamed'):
        await sql.execute("update leasehold.agents set name = 'mender'")


@pytest.mark.rule("SW35", "PW15")
async def test_a_paused_agent_starts_nothing_until_it_is_resumed(sql, worker, job, look):
    born = await job()
    await sql.execute("select leasehold.pause_agent('Fixer', 'rate limited')")
    assert tuple(await sql.fetchrow("select status, status_reason from leasehold.agents")) == ("paused", "rate limited")
    assert await worker.claim() == []
    assert await sql.fetchval("select situation from leasehold.job_overview") == "waiting: the agent is paused"
    await sql.execute("select leasehold.resume_agent('fixer')")
    assert [run["job_id"] for run in await worker.claim()] == [born]


@pytest.mark.rule("A29")
@pytest.mark.parametrize("function", ["pause_agent", "resume_agent"])
async def test_an_unknown_agent_is_named(sql, refused, function):
    async with refused("LH024", 'there is no agent "nobody"'):
        await sql.execute(f"select leasehold.{function}('nobody')")


@pytest.mark.rule("P48")
async def test_an_agent_with_live_jobs_cannot_be_deleted(sql, worker, job, refused):
    born = await job()
    async with refused("LH025", 'agent "fixer" still has 1 job(s) to do'):
        await sql.execute("delete from leasehold.agents")
    await sql.execute("select leasehold.cancel($1)", born)
    await sql.execute("delete from leasehold.agents")
    async with refused("LH024"):
        await sql.execute("select leasehold.retry($1)", born)


async def test_deleting_an_agent_waits_for_nobody_for_long_and_never_strands_a_job(sql, fixer, connect, job, refused):
    producer = await connect()
    async with producer.transaction():
        await job(producer)
        async with refused("LH026", "somebody is writing jobs"):
            await sql.execute("delete from leasehold.agents")
    late = await connect()
    async with sql.transaction():
        await sql.execute("delete from leasehold.jobs")
        await sql.execute("delete from leasehold.agents")
        waiting = asyncio.create_task(job(late))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    with pytest.raises(Exception, match='there is no agent "fixer"'):
        await waiting


@pytest.mark.parametrize("status", ["retired", "pending_approval"])
@pytest.mark.parametrize("function", ["pause_agent", "resume_agent"])
async def test_only_its_status_brings_an_agent_back_that_is_not_to_be_asked(sql, fixer, refused, status, function):
    await sql.execute("update leasehold.agents set status = $1", status)
    async with refused("LH062"):
        await sql.execute(f"select leasehold.{function}('fixer')")
    assert await sql.fetchval("select status from leasehold.agents") == status


async def test_which_mode_an_acp_agent_is_put_into_is_its_rows_to_say(sql):
    await sql.execute(
        "insert into leasehold.agents (name, adapter, command, env)"
        """ values ('planner', 'acp', '{agent,--acp}', '{"LEASEHOLD_ACP_MODE": "plan"}')"""
    )
