"""What an agent is given to log in with is nowhere for others to read, whatever it prints."""

import json
import shutil

import pytest

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
