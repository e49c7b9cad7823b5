"""A full disk is its own reason: it stops nobody who can go on, uses up no attempt, and ends by itself."""

import asyncio
import os
import subprocess

import pytest

FILLS = "cat /dev/zero > fill; exit 1"
LATER = "update leasehold.jobs set run_at = leasehold.clock() where status = 'queued'"


MIB = 1024 * 1024


def room(directory):
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize


@pytest.fixture
def small_disk(tmp_path):
    """Twenty-four megabytes at the place where the host called "small" lives."""
    directory = tmp_path / "small"
    directory.mkdir()
    size = ["-t", "tmpfs", "-o", "size=24m,mode=0777"]
    if subprocess.run(["mount", *size, "none", directory], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot mount a small disk")
async def test_a_full_disk_ends_only_who_fails_on_it_and_nothing_new_begins_until_there_is_room(
    small_disk, host_at, sql, agent, insert, ends, eventually, tmp_path
):
    go = tmp_path / "go"
    await agent("filler", FILLS)
    await agent("talker", f"until [ -e {go} ]; do sleep 0.05; done; echo done")
    host = host_at("small")
    assert host.directory == small_disk
    async with host.daemon(disk_reserve="4MiB", poll="1s"):
        talker = await insert("talker")
        await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=1)
        filler = await insert("filler")
        await eventually(sql, "select reason from leasehold.runs where job_id = $1", filler, expected="disk_full")
        assert await sql.fetchval("select (status, attempts)::text from leasehold.jobs where id = $1", filler) == (
            "(queued,0)"
        )

        while room(small_disk) < 12 * MIB:  # the filler's directory goes
            await asyncio.sleep(0.01)
        hoard = small_disk / "hoard"
        hoard.write_bytes(b"x" * (room(small_disk) - 2 * MIB))  # the log has room
        await host.said("disk_short")
        simple = await insert("talker")
        await asyncio.sleep(1)  # it is rung for, and looked at
        freed = await sql.fetchval("select clock_timestamp()")
        hoard.unlink()
        await host.said("disk_roomy")
        go.touch()
        await ends(talker, "succeeded")
        await ends(simple, "succeeded")
        assert await sql.fetchval("select claimed_at from leasehold.runs where job_id = $1", simple) > freed
