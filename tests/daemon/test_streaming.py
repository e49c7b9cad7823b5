"""A message that streams while daemons die is what its agent said: no piece lost, none doubled, and few changes for many pieces."""

import pytest

pytestmark = pytest.mark.race

WRITER = r"""
import json, sys, time
for n in range(3000):
    word = json.dumps({"type": "delta", "id": "m" if n < 2500 else "n", "text": f"{n} "})
    sys.stdout.write(word + "\n")
    if n % 100 == 50:
        sys.stdout.write(json.dumps({"type": "progress", "text": str(n)}) + "\n")
    if n % 5 == 0:
        sys.stdout.flush()
        time.sleep(0.006)
"""
WHOLE = {"m": "".join(f"{n} " for n in range(2500)), "n": "".join(f"{n} " for n in range(2500, 3000))}


@pytest.mark.rule("S89", "X13")
async def test_a_message_that_streams_while_daemons_are_killed_is_whole(host, sql, insert, ends, eventually, tmp_path):
    (tmp_path / "writer.py").write_text(WRITER)
    await sql.execute(
        "insert into leasehold.agents (name, command) values ('writer', array['python3', $1])",
        str(tmp_path / "writer.py"),
    )
    grown = "select coalesce(sum(bytes), 0) > $2 from leasehold.messages where job_id = $1 and source = 'agent'"
    job = None
    for past in (200, 3_000, 8_000):
        async with host.daemon() as daemon:
            job = job or await insert("writer", thread="t")
            await eventually(sql, grown, job, past, expected=True)
            daemon.kill()
            await daemon.wait()
    async with host.daemon():
        await ends(job, "succeeded")
    rows = await sql.fetch(
        "select external_id, content, status from leasehold.messages where source = 'agent' order by id"
    )
    assert {row["external_id"]: row["content"] for row in rows} == WHOLE
    assert [row["status"] for row in rows] == ["completed", "completed"]
    assert await sql.fetchval("select count(*) from leasehold.runs") == 1
    assert await sql.fetchval("select count(*) from leasehold.events where kind = 'progress'") == 30
    assert await sql.fetchval("select last_value from leasehold.message_versions") < 1_000, "a change for each piece"
