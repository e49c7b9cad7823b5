"""What an agent is given to log in with is nowhere for others to read, whatever it prints."""

import json
import shutil

import pytest
from support.host import cmdline, pids
from support.repository import made

KEY = "sk-very-secret-0123456789"
TALKS = """echo "my key is $MY_API_KEY"; echo "$MY_API_KEY" >&2
printf '{"type": "message", "text": "I use %s"}\\n' "$MY_API_KEY"
printf '{"type": "result", "ok": false, "message": "401: bad key %s"}\\n' "$MY_API_KEY"; exit 1"""
EVERYWHERE = """
select string_agg(said, ' ') from (
  select coalesce(message, '') || coalesce(data::text, '') as said from leasehold.events
  union all select coalesce(message, '') || coalesce(result::text, '') from leasehold.jobs
  union all select coalesce(message, '') || coalesce(result::text, '') || coalesce(resources::text, '') from leasehold.runs
  union all select content from leasehold.messages
  union all select encode(bytes, 'escape') from leasehold.output) all_of_it"""


@pytest.mark.rule("PW41")
async def test_a_key_that_an_agent_prints_is_stars_for_every_reader(host, sql, agent, insert, ends, written):
    await agent("teller", TALKS, env=json.dumps({"MY_API_KEY": KEY}))
    async with host.daemon():
        job = await insert("teller")
        await ends(job, "failed")
    stars = b"*" * len(KEY)
    assert await written(job) == b"my key is " + stars + b"\n"
    assert await written(job, "stderr") == stars + b"\n"
    told = await sql.fetchval(EVERYWHERE)
    assert "I use ***" in told
    assert KEY not in told
    logs = [path.read_bytes() for path in host.directory.rglob("*.log")]
    assert logs
    assert KEY.encode() not in b"".join(logs)


@pytest.fixture
def repository(tmp_path, host):
    repository = made(tmp_path / "origin")
    host.environment |= repository.environment
    return repository


@pytest.mark.rule("X27", "SW37", "PW41")
async def test_what_it_was_given_in_files_is_stars_too_also_for_a_daemon_that_takes_it_up(
    host, sql, agent, insert, ends, eventually, repository, tmp_path
):
    login, go = tmp_path / "auth.json", tmp_path / "go"
    login.write_text(json.dumps({"tokens": {"access_token": KEY + "-lent"}}))
    teller = f"""
cat .env $HOME/auth.json $HOME/config.toml; cp .env new.txt; git add -A; echo '{{"type": "progress", "text": "here"}}'
while [ ! -e {go} ]; do sleep 0.02; done; cat .env $HOME/auth.json $HOME/config.toml >&2"""
    await agent(
        "teller", teller, repository=str(repository.path), env=json.dumps(repository.environment), private_config=True,
        env_file_path=".env", env_file_text=f"THE_KEY={KEY}-file\n", credential=str(login), credential_name="auth.json",
        config_files=json.dumps({"config.toml": f'bearer_token = "{KEY}-text"\n'}),
    )  # fmt: skip
    here = "select exists (select from leasehold.events where job_id = $1 and message = 'here')"
    async with host.daemon(stop_mode="detach") as daemon:
        job = await insert("teller")
        await eventually(sql, here, job, expected=True)
        assert not [pid for pid in pids() if KEY.encode() in cmdline(pid)]
        [spec] = host.directory.glob("runs/*/spec.json")
        assert KEY not in spec.read_text()
        daemon.kill()
        await daemon.wait()
    go.touch()
    async with host.daemon():
        await ends(job, "succeeded")
    told = await sql.fetchval(EVERYWHERE)
    assert told.count("THE_KEY=***") == told.count("bearer_token = ") == 2
    assert KEY not in told
    diff = await sql.fetchval("select string_agg(content, '') from leasehold.artifacts where job_id = $1", job)
    assert "new.txt" in diff
    assert KEY not in diff
    assert KEY.encode() not in b"".join(path.read_bytes() for path in host.directory.rglob("*.log"))


@pytest.mark.rule("PW41")
async def test_what_an_agent_wrote_is_there_to_the_byte_without_its_host_and_not_for_ever(
    host, sql, agent, insert, ends, written
):
    await agent("writer", "i=0; while [ $i -lt 20000 ]; do printf 'é€😀'; i=$((i+1)); done")
    async with host.daemon():
        job = await insert("writer")
        await ends(job, "succeeded")
    host.clear()
    shutil.rmtree(host.directory)
    assert (await written(job)).decode() == "é€😀" * 20000
    assert await sql.fetchval("select keep > interval '0' from leasehold.retention where what = 'output'")
