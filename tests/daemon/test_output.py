"""Any bytes, any number of them: what is kept of it is right, what is not is said, and the daemon does not swell."""

import asyncio
import hashlib
import json
import sys

import pytest
from support import flood as floods
from support import talker as talkers
from support.flood import flood, on_disk, rss

MIB = 1024 * 1024
FLOOD = [sys.executable, floods.__file__]


@pytest.fixture
def flooder(agent):
    """An agent that writes so many bytes; what is kept of them is small."""

    async def make(total, *words, name="flooder", **columns):
        columns = {"output_head": 2 * MIB, "output_tail": MIB, **columns}
        return await agent(name, "", command=[*FLOOD, str(total), *words], **columns)

    return make


@pytest.fixture
def stored(sql):
    """What is stored of the stream of a job's last run, as [offset, bytes] of each contiguous range; and the summary."""

    async def get(job, stream="stdout"):
        run = await sql.fetchrow(
            "select id, output from leasehold.runs where job_id = $1 order by id desc limit 1", job
        )
        rows = await sql.fetch(
            "select byte_offset, bytes from leasehold.output where run_id = $1 and stream = $2 order by byte_offset",
            run["id"],
            stream,
        )
        ranges = []
        for row in rows:
            end = ranges[-1][0] + len(ranges[-1][1]) if ranges else None
            assert end is None or row["byte_offset"] >= end, "rows overlap"
            if row["byte_offset"] == end:
                ranges[-1][1] += row["bytes"]
            else:
                ranges.append([row["byte_offset"], bytearray(row["bytes"])])
        return ranges, json.loads(run["output"])[stream] if run["output"] else None

    return get


@pytest.fixture
def notices(sql):
    """The events of a job of one kind: their data."""

    async def get(job, kind):
        rows = await sql.fetch(
            "select data from leasehold.events where job_id = $1 and kind = $2 order by seq", job, kind
        )
        return [json.loads(row["data"]) for row in rows]

    return get


def is_head_and_tail(stored, total, head, tail):
    ranges, summary = stored
    first, last = flood(0, head), flood(total - tail, total)
    assert [(start, len(raw)) for start, raw in ranges] == [(0, head), (total - tail, tail)]
    assert ranges[0][1] == first and ranges[1][1] == last
    assert summary == {
        "bytes": total, "kept": [[0, head], [total - tail, total]], "dropped": total - tail - head,
        "sha256": hashlib.sha256(first + last).hexdigest(),
    }  # fmt: skip


@pytest.mark.rule("P55", "PW44", "X26")
async def test_of_a_flood_head_and_tail_are_kept_and_memory_and_disk_stay_small(
    host, sql, flooder, insert, stored, notices
):
    total = 400 * MIB + 12345
    await flooder(total)
    async with host.daemon() as daemon:
        before, memory, disk = rss(daemon.pid), 0, 0
        job = await insert("flooder")
        while await sql.fetchval("select status from leasehold.jobs where id = $1", job) not in ("succeeded", "failed"):
            memory, disk = max(memory, rss(daemon.pid)), max(disk, on_disk(host.directory / "runs"))
            await asyncio.sleep(0.02)
    is_head_and_tail(await stored(job), total, 2 * MIB, MIB)
    assert [notice["stream"] for notice in await notices(job, "output_truncated")] == ["stdout"]
    assert memory - before < 20 * MIB
    assert disk < 300 * MIB, (
        "much of it goes before it is all there, even if others keep the cores busy; `make flood` measures"
    )


async def test_exactly_what_is_over_the_cap_is_dropped(host, flooder, insert, ends, stored, notices):
    totals = [3 * MIB - 1, 3 * MIB, 3 * MIB + 1, 2 * MIB, 2 * MIB + 1]
    async with host.daemon():
        jobs = {total: await insert(await flooder(total, name=f"flooder-{total}")) for total in totals}
        for job in jobs.values():
            await ends(job, "succeeded")
    for total, job in jobs.items():
        if total > 3 * MIB:
            is_head_and_tail(await stored(job), total, 2 * MIB, MIB)
        else:
            whole = flood(0, total)
            summary = {"bytes": total, "kept": [[0, total]], "dropped": 0, "sha256": hashlib.sha256(whole).hexdigest()}
            assert await stored(job) == ([[0, whole]], summary)
        assert len(await notices(job, "output_truncated")) == (total > 3 * MIB)


@pytest.mark.rule("PW44")
async def test_stderr_has_caps_of_its_own(host, flooder, insert, ends, stored, notices):
    await flooder(60 * MIB, "2")
    async with host.daemon():
        job = await insert("flooder")
        await ends(job, "succeeded")
    is_head_and_tail(await stored(job, "stderr"), 60 * MIB, 2 * MIB, MIB)
    assert (await stored(job))[0] == []
    assert [notice["stream"] for notice in await notices(job, "output_truncated")] == ["stderr"]


async def test_sigkill_in_the_middle_of_a_flood_changes_no_byte_of_what_is_kept(
    host, sql, flooder, insert, ends, eventually, stored, notices
):
    total = 300 * MIB + 777
    await flooder(total, "1", "0.0005")
    job = None
    for life in range(4):
        async with host.daemon() as daemon:
            job = job or await insert("flooder")
            await eventually(
                sql,
                "select coalesce((checkpoint -> 'stdout' ->> 'raw')::bigint, 0) > $2 from leasehold.runs where job_id = $1",
                job, life * 40 * MIB, expected=True,
            )  # fmt: skip
            if life:
                assert (await host.said("run_adopted"))["job_id"] == job
            daemon.kill()
            await daemon.wait()
    [file] = host.directory.glob("runs/*/stdout")
    assert file.stat().st_blocks * 512 < file.stat().st_size - 80 * MIB, "nothing was given back to the disk"
    async with host.daemon():
        await ends(job, "succeeded", within=60)
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
    is_head_and_tail(await stored(job), total, 2 * MIB, MIB)
    assert [notice["stream"] for notice in await notices(job, "output_truncated")] == ["stdout"]


@pytest.mark.parametrize("so_far", ["checkpoint is not null", "(checkpoint -> 'stdout' ->> 'raw')::bigint > 0"])
async def test_caps_raised_in_the_middle_of_a_run_falsify_nothing_of_it(
    host, sql, flooder, insert, ends, eventually, stored, so_far
):
    total = 50 * MIB + 5
    await flooder(total, "1", "0.004")
    async with host.daemon() as daemon:
        job = await insert("flooder")
        await eventually(sql, f"select {so_far} from leasehold.runs where job_id = $1", job, expected=True)
        daemon.kill()
        await daemon.wait()
    await sql.execute("update leasehold.agents set output_head = $1, output_tail = $2", 8 * MIB, 3 * MIB)
    async with host.daemon():
        await ends(job, "succeeded")
    is_head_and_tail(await stored(job), total, 2 * MIB, MIB)


async def test_the_late_outcome_of_a_run_whose_file_has_a_hole_has_the_right_head_and_tail(
    host_at, sql, flooder, insert, ends, eventually, stored
):
    total, short = 50 * MIB + 5, {"lease": "4s", "renewal": "0.8s", "margin": "1.5s", "grace": "0.5s"}
    await flooder(total, "1", "0.001")
    one, two = host_at("one"), host_at("two")
    async with one.daemon(**short) as daemon:
        job = await insert("flooder")
        await eventually(
            sql, "select (checkpoint -> 'stdout' ->> 'raw')::bigint > 0 from leasehold.runs", expected=True
        )
        daemon.kill()
        await daemon.wait()
    async with two.daemon(**short, queues="elsewhere"):
        await eventually(sql, "select outcome from leasehold.runs", expected="lost", within=40)
    async with one.daemon(**short, queues="elsewhere"):
        await ends(job, "succeeded", within=60)
    assert await sql.fetchval("select late_outcome ->> 'outcome' from leasehold.runs") == "succeeded"
    is_head_and_tail(await stored(job), total, 2 * MIB, MIB)


@pytest.mark.parametrize(("first", "caps"), [(0, {}), (2 * MIB + 99, {"output_head": 2 * MIB, "output_tail": MIB})])
async def test_an_agent_of_events_only_costs_little_disk_and_sigkill_repeats_none_of_them(
    host, sql, agent, insert, eventually, stored, first, caps
):
    """Its head is never full, or its tail never scrolls."""
    events = 20_000
    await agent("talker", "", command=[sys.executable, talkers.__file__, str(events), str(first)], **caps)
    job, disk, status = None, 0, "queued"
    for life in range(3):
        async with host.daemon() as daemon:
            job = job or await insert("talker")
            while status not in ("succeeded", "failed"):
                status = await sql.fetchval("select status from leasehold.jobs where id = $1", job)
                disk = max(disk, on_disk(host.directory / "runs"))
                said = await sql.fetchval("select max(seq) from leasehold.events where job_id = $1", job)
                if life < 2 and said > (life + 1) * events // 4:
                    daemon.kill()
                    await daemon.wait()
                    break
                await asyncio.sleep(0.02)
    assert status == "succeeded"
    assert disk < 150 * MIB  # of 200 MB that it writes; how far it is ahead when we hold it depends on the machine
    assert await sql.fetchval("select count(*) from leasehold.runs where job_id = $1", job) == 1
    heard = await sql.fetch(
        "select (data ->> 'n')::int from leasehold.events where job_id = $1 and kind = 'progress' order by seq", job
    )
    assert [row[0] for row in heard] == list(range(events))
    whole = talkers.plain(events, first)
    summary = {
        "bytes": len(whole), "kept": [[0, len(whole)]], "dropped": 0, "sha256": hashlib.sha256(whole).hexdigest()
    }  # fmt: skip
    assert await stored(job) == ([[0, whole]], summary)


@pytest.mark.rule("SW36", "AW32")
async def test_events_over_the_limit_are_dropped_with_one_notice_and_the_result_counts(
    host, sql, agent, insert, ends, eventually, tmp_path
):
    go = tmp_path / "go"
    say = 'i=0; while [ $i -lt 200 ]; do echo "{\\"type\\":\\"progress\\",\\"n\\":$i}"; i=$((i+1)); done'
    result = """echo '{"type":"result","ok":false,"message":"no luck"}'"""
    await agent("chatty", f"{say}; until [ -e {go} ]; do sleep 0.05; done; {say}; {result}", events_limit=150)
    async with host.daemon() as daemon:
        job = await insert("chatty")
        await eventually(sql, "select count(*) from leasehold.events where kind = 'events_truncated'", expected=1)
        daemon.kill()
        await daemon.wait()
    go.touch()
    async with host.daemon():
        await ends(job, "failed")
    said = await sql.fetch(
        "select kind, level, data from leasehold.events where kind in ('progress', 'result', 'events_truncated')"
        " order by seq"
    )
    assert [json.loads(row["data"]).get("n") for row in said[:-1]] == list(range(150))
    assert (said[-1]["kind"], said[-1]["level"]) == ("events_truncated", "warning")
    assert await sql.fetchval("select message from leasehold.runs") == "no luck"


@pytest.mark.rule("P55", "P85")
async def test_a_follower_by_offset_sees_gaps_but_never_wrong_bytes(host, sql, flooder, insert):
    total = 60 * MIB
    await flooder(total, "1", "0.006")
    followed = at = 0
    async with host.daemon():
        job = await insert("flooder")
        status = "queued"
        while status in ("queued", "running"):
            status = await sql.fetchval("select status from leasehold.jobs where id = $1", job)
            rows = await sql.fetch(
                "select byte_offset, bytes from leasehold.output where job_id = $1 and byte_offset >= $2"
                " order by byte_offset",
                job, at,
            )  # fmt: skip
            for row in rows:
                at = row["byte_offset"] + len(row["bytes"])
                assert row["bytes"] == flood(row["byte_offset"], at)
                followed += len(row["bytes"])
            await asyncio.sleep(0.05)
    assert (status, at) == ("succeeded", total)
    assert followed > 4 * MIB, "the tail was not shipped on the way"
