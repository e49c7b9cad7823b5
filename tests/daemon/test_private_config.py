"""A configuration directory for each conversation, through the whole system: rows, daemon, keeper, stage, agent, and what stays of it."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest

ROTATING = [sys.executable, str(Path(__file__).parents[1] / "stage" / "rotating.py")]
SAYS = """
import json, os
home = os.environ["HOME"]
count = len(os.listdir(home))
print(json.dumps({"type": "session", "id": os.environ.get("LEASEHOLD_SESSION") or "s-" + os.environ["LEASEHOLD_RUN_ID"]}), flush=True)
open(os.path.join(home, os.environ["LEASEHOLD_RUN_ID"]), "w").close()
print(json.dumps({"type": "result", "value": {"home": home, "there": count, "mode": open(home + "/settings.json").read()}}))
"""

SAID = """
    select string_agg(said, ' ')
      from (select s::text as said from leasehold.session_overview s
            union all select a::text from leasehold.session_activity a
            union all select e::text from leasehold.events e
            union all select r::text from leasehold.runs r
            union all select leasehold.why(j.id) from leasehold.jobs j) all_of_it"""


@pytest.fixture
def login(tmp_path):
    """A credential that rotates, and the server that it is for."""
    (tmp_path / "server").write_text("1")
    (tmp_path / "login").mkdir()
    credential = tmp_path / "login" / "auth.json"
    credential.write_text('{"token": 1}')
    return credential


async def result(sql, job):
    return json.loads(await sql.fetchval("select result from leasehold.jobs where id = $1", job))


@pytest.mark.rule("P53", "A61")
async def test_a_conversation_goes_on_in_its_own_directory_and_another_has_another(host, sql, agent, insert, ends):
    await agent(
        "talker",
        "",
        command=[sys.executable, "-c", SAYS],
        private_config=True,
        config_files='{"settings.json": "quiet"}',
    )
    async with host.daemon():
        jobs = []
        for key in ("talk", "talk", "other"):
            jobs.append(await insert("talker", session_key=key))
            await ends(jobs[-1], "succeeded")
    first, second, other = [await result(sql, job) for job in jobs]
    assert first["home"] == second["home"] != other["home"] and first["mode"] == "quiet"
    assert (first["there"], second["there"], other["there"]) == (1, 2, 1)
    assert Path(first["home"]).is_relative_to(host.directory / "sessions")
    rows = await sql.fetch("select kind, path from leasehold.sessions order by id")
    assert [host.directory / row["path"] for row in rows] == [Path(first["home"]), Path(other["home"])]


@pytest.mark.rule("A73")
async def test_what_is_said_of_a_conversation_is_ids_and_names_and_nothing_of_its_configuration(
    host, sql, agent, insert, ends, login
):
    talks = "open(os.path.join(os.environ['HOME'], 'settings.json')).read()"
    command = [
        sys.executable,
        "-c",
        f"import json, os; {talks}; print(json.dumps({{'type': 'session', 'id': 's-17'}}))",
    ]
    columns = {"private_config": True, "config_files": '{"settings.json": "verysecret"}', "credential": str(login)}
    await agent("talker", "", command=command, credential_name="auth.json", **columns)
    login.write_text('{"token": "verysecret"}')
    async with host.daemon():
        await ends(await insert("talker", session_key="talk"), "succeeded")
    said, event = await sql.fetchval(SAID), "select data from leasehold.events where kind = 'session'"
    assert "s-17" in said and "talk" in said and "verysecret" not in said
    assert json.loads(await sql.fetchval(event)) == {"id": "s-17"}
    assert b"verysecret" not in host.log_file.read_bytes()


async def test_a_reset_conversation_leaves_nothing_on_the_disk(host, sql, agent, insert, ends, eventually):
    await agent(
        "talker", "", command=[sys.executable, "-c", SAYS], private_config=True, config_files='{"settings.json": "x"}'
    )
    async with host.daemon(sweep="1s"):
        job = await insert("talker", session_key="talk")
        await ends(job, "succeeded")
        home = Path((await result(sql, job))["home"])
        assert home.is_dir()
        await sql.execute("select leasehold.reset_session('talker')")
        await eventually(sql, "select count(*) from leasehold.removals where done_at is null", expected=0)
    assert not home.exists()


async def test_jobs_at_once_with_one_rotating_login_all_succeed(host, sql, agent, insert, ends, login, tmp_path):
    env = json.dumps({"CODEX_HOME": "{config}"})
    await agent(
        "rotating",
        "",
        command=[*ROTATING, str(tmp_path / "server"), "3"],
        env=env,
        private_config=True,
        credential=str(login),
    )
    async with host.daemon():
        jobs = [await insert("rotating") for _ in range(4)]
        for job in jobs:
            await ends(job, "succeeded", within=60)
    assert json.loads(login.read_text())["token"] == 13
    assert b"token" not in b"".join(row[0] for row in await sql.fetch("select bytes from leasehold.output"))


@pytest.mark.rule("PW47")
async def test_a_login_that_is_taken_parks_the_job_and_one_that_is_not_there_ends_it(
    host, sql, agent, insert, ends, eventually, login, tmp_path
):
    env = json.dumps({"CODEX_HOME": "{config}"})
    command = [*ROTATING, str(tmp_path / "server"), "1", str(tmp_path / "has-it"), str(tmp_path / "may-go")]
    columns = {"env": env, "private_config": True, "credential": str(login)}
    await agent("holder", "", command=command, **columns)
    await agent("late", "", command=[*ROTATING, str(tmp_path / "server"), "1"], credential_wait=timedelta(0), **columns)
    await agent("lost", "", command=["true"], **{**columns, "credential": "/no/such/login"})
    async with host.daemon():
        first = await insert("holder")
        await eventually(sql, "select count(*) from leasehold.runs where started_at is not null", expected=1)
        while not (tmp_path / "has-it").exists():
            await sql.execute("select pg_sleep(0.05)")
        parked = await insert("late")
        await eventually(sql, "select reason from leasehold.jobs where id = $1", parked, expected="credential_busy")
        assert tuple(await sql.fetchrow("select status, attempts from leasehold.jobs where id = $1", parked)) == (
            "queued",
            0,
        )
        (tmp_path / "may-go").touch()
        await ends(first, "succeeded")
        lost = await insert("lost")
        await ends(lost, "failed")
        row = await sql.fetchrow("select reason, message from leasehold.jobs where id = $1", lost)
        assert row["reason"] == "auth" and "/no/such/login" in row["message"]
