"""A full disk is its own reason: it stops nobody who can go on, uses up no attempt, and ends by itself."""

import os
import subprocess
from contextlib import contextmanager

import pytest

FILLS = "cat /dev/zero > fill; exit 1"
LATER = "update leasehold.jobs set run_at = leasehold.clock() where status = 'queued'"


@contextmanager
def small_disk(directory, megabytes):
    directory.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "none", directory],
        stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot mount a small disk")
async def test_a_full_disk_ends_only_who_fails_on_it_and_nothing_new_begins_until_there_is_room(
    host_at, sql, agent, insert, ends, eventually, tmp_path
):
    go = tmp_path / "go"
    await agent("filler", FILLS)
    await agent("talker", f"until [ -e {go} ]; do sleep 0.05; done; echo done")
    host = host_at("small")
    with small_disk(host.directory, 24):
        async with host.daemon(disk_reserve="4MiB"):
            talker = await insert("talker")
            await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=1)
            filler = await insert("filler")
            await eventually(sql, "select reason from leasehold.runs where job_id = $1", filler, expected="disk_full")
            assert await sql.fetchval("select (status, attempts)::text from leasehold.jobs where id = $1", filler) == (
                "(queued,0)"
            )

            hoard = host.directory / "hoard"
            with hoard.open("wb") as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * 65536)
            simple = await insert("talker")
            await host.said("disk_short")
            assert await sql.fetchval("select status from leasehold.jobs where id = $1", simple) == "queued"
            hoard.unlink()
            await host.said("disk_roomy")
            go.touch()
            await ends(talker, "succeeded")
            await ends(simple, "succeeded")
