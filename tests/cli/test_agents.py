"""`leasehold agents`: what this host has of each agent, rows for known ones, and a test of one turn."""

import json

import pytest


@pytest.fixture
def program(tmp_path):
    """A program that answers --version in its own way."""

    def make(name, script, mode=0o755):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    return make


@pytest.fixture
def listed(leasehold):
    async def rows():
        code, out, err = await leasehold("agents", "--json")
        assert code == 0, err
        return {row["name"]: row for row in json.loads(out)}

    return rows


async def test_each_agent_is_found_as_its_row_says_with_its_version_and_what_is_in_the_way(
    agent, program, listed, tmp_path
):
    good = program("codex", "echo codex-cli 99.1.2")
    await agent("new", "", command=[str(good)])
    await agent("old", "", command=["claude"], env=json.dumps({"PATH": str(tmp_path / "bin")}))
    program("claude", "echo '1.0.3 (Claude Code)'")
    await agent("absent", "", command=["no-such-program"])
    await agent("gone", "", command=["/no/such/file"])
    await agent("denied", "", command=[str(program("plain", "", 0o644))])
    await agent("boxed", "", command=["codex"], launcher=["nice"])
    await agent("shell", "true")
    rows = await listed()
    assert (rows["new"]["program"], rows["new"]["version"], rows["new"]["problem"]) == (str(good), "99.1.2", None)
    assert rows["old"]["problem"].startswith("older than") and rows["old"]["how"] == "PATH of its env"
    assert rows["absent"]["problem"].startswith("there is no no-such-program on ")
    assert rows["gone"]["problem"] == "there is no such file"
    assert "launcher" in rows["boxed"]["how"] and rows["boxed"]["problem"] is None
    assert rows["shell"]["problem"] is None and rows["shell"]["version"] is None
    assert rows["denied"]["problem"] == "it may not be executed"


async def test_a_program_that_never_answers_is_given_up_with_all_it_started(
    agent, program, listed, tmp_path, leasehold
):
    hangs = program("codex", f"sleep 300 & echo $! >{tmp_path}/pid; wait")
    await agent("hangs", "", command=[str(hangs)])
    await agent("breaks", "", command=[str(program("claude", "exit 3"))])
    rows = await listed()
    assert "within 5 s" in rows["hangs"]["problem"]
    assert rows["breaks"]["problem"] == "it answers --version with exit code 3"
    left = int((tmp_path / "pid").read_text())
    state = _state(left)
    assert state in (None, "Z"), f"what it had started is {state}"
    code, out, _ = await leasehold("agents")
    assert code == 0 and "hangs" in out


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


async def test_the_version_is_asked_without_anybodys_keys(agent, program, listed, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret-1.2.3")
    await agent("curious", "", command=[str(program("codex", "echo key=$SOME_KEY version 100.0.1"))])
    assert (await listed())["curious"]["version"] == "100.0.1"


@pytest.mark.parametrize("name", ["codex", "claude"])
async def test_a_known_agent_is_added_with_the_sql_that_did_it(leasehold, sql, name):
    code, out, err = await leasehold(
        "agents", "add", name, "--program", f"/opt/agents/{name}", "--workspace", "/srv/it's"
    )
    assert code == 0, err
    row = await sql.fetchrow("select * from leasehold.agents")
    assert (row["name"], row["command"][0], row["workspace"], row["private_config"]) == (
        name,
        f"/opt/agents/{name}",
        "/srv/it's",
        True,
    )
    assert "no such file" in out and "_API_KEY" in out
    statement = out.splitlines()[0]
    await sql.execute("delete from leasehold.agents")
    await sql.execute(statement)
    again = await sql.fetchrow("select * from leasehold.agents")
    assert {**row, "created_at": 0, "updated_at": 0} == {**again, "created_at": 0, "updated_at": 0}


async def test_a_login_is_named_in_place_of_a_key(leasehold, sql):
    code, out, err = await leasehold(
        "agents", "add", "codex", "--name", "c2", "--credential", "/home/agent/.codex/auth.json"
    )
    assert code == 0 and "_API_KEY" not in out, err
    row = await sql.fetchrow("select name, credential, config_files from leasehold.agents")
    assert tuple(row) == ("c2", "/home/agent/.codex/auth.json", "{}")


async def test_what_is_not_known_or_is_there_already_is_refused(leasehold):
    code, _, err = await leasehold("agents", "add", "copilot")
    assert code == 2 and "none of: codex, claude" in err
    assert (await leasehold("agents", "add", "claude"))[0] == 0
    code, _, err = await leasehold("agents", "add", "claude")
    assert code == 1 and "23505" in err


async def test_one_turn_says_how_it_went_and_what_to_do(host, agent, leasehold):
    await agent("well", "echo ok")
    await agent("ill", "exit 3")
    await agent("absent", "", command=["no-such-program"])
    async with host.daemon():
        code, out, _ = await leasehold("agents", "check", "well")
        assert code == 0 and "succeeded" in out
        code, out, _ = await leasehold("agents", "check", "ill")
        assert code == 1 and "failed" in out and "exit_code" in out and "advice: " in out
        code, out, _ = await leasehold("agents", "check", "absent", "--json")
        assert code == 1 and "spawn_not_found" in " ".join(json.loads(out)["story"])


async def test_a_turn_that_takes_too_long_is_cancelled_and_explained(agent, leasehold, sql):
    await agent("idle", "echo ok")
    code, out, _ = await leasehold("agents", "check", "idle", "--timeout", "1")
    assert code == 1 and "was cancelled" in out and "no worker" in out.lower()
    assert await sql.fetchval("select status from leasehold.jobs") == "cancelled"
    code, _, err = await leasehold("agents", "check", "nobody")
    assert code == 1 and "LH001" in err
