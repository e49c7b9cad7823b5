"""The daemon's side of the keeper's protocol: the same questions, asked through processes/."""

import contextlib
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import anyio
import pytest
from leasehold.cli.doctor import _keeper as keeper_check
from leasehold.errors import KeeperMismatch, KeeperRefused
from leasehold.keeper import protocol
from leasehold.models import boottime
from leasehold.processes import link
from leasehold.processes.keeper import Spawn
from leasehold.processes.link import open_keeper
from support.host import alive
from support.keeper import SILENT, KeeperProcess

pytestmark = pytest.mark.race


@contextlib.asynccontextmanager
async def linked(process):
    async with open_keeper(
        process.directory, process.socket, "test", start_if_missing=False, on_back=lambda: None
    ) as keeper:
        yield keeper


async def started(keeper, run_id, script, **words):
    spec = Spawn(run_id, f"t{run_id}", ["sh", "-c", script], {}, None, None, boottime() + 60, 1.0, **words)
    return await keeper.spawn(spec)


async def fact(ask, within=20.0):
    with anyio.fail_after(within):
        while not (found := await ask()):
            await anyio.sleep(0.01)
    return found


async def test_hold_look_release_and_punch_as_the_daemon_asks(keeper):
    async with linked(keeper) as client:
        await started(client, 1, "while :; do echo word; done")
        assert await client.hold(1) is True
        assert [run.held for run in await client.kept()] == [True]
        seen = await client.look(1)
        assert [one["name"] for one in seen.processes] == ["sh"]
        assert "sh" in seen.tree and seen.cpu_seconds >= 0 and seen.io_bytes >= 0
        await client.release(1)
        assert [run.held for run in await client.kept()] == [False]

        async def grown():
            return keeper.path(1, "stdout").stat().st_size > 200_000

        await fact(grown)
        assert await client.punch(1, "stdout", 0, 100_000) in (True, False)
        with pytest.raises(KeeperRefused):
            await client.look(99)
        await client.stop(1, "cancelled", [])
        ending = await client.exited(1)
        assert ending.disk_free > 0 and "sh" in ending.tree


async def test_limits_that_the_host_does_not_enforce_are_named(keeper):
    async with linked(keeper) as client:
        kept = await started(client, 1, "sleep 300", limits={"pids_max": 50})
        assert kept.limits_missing == (() if "pids" in client.containment["enforced"] else ("pids_max",))
        assert (await client.kept())[0].limits_missing == kept.limits_missing


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can make an unkillable process"
)
async def test_an_unkillable_tree_is_heard_of_by_push_and_by_a_later_daemon(tmp_path):
    process = KeeperProcess(
        tmp_path / "state", "subreaper", prefix=("setpriv", "--inh-caps=-kill", "--bounding-set=-kill", "--")
    )
    process.start("--unkillable-after", "0.2")
    try:
        async with linked(process) as client:
            await started(client, 1, "setpriv --reuid=54321 --clear-groups sleep 300 & sleep 0.3")
            with anyio.fail_after(10):
                left = await client.unkillable(1)
        async with linked(process) as client:
            assert [run.state for run in await client.kept()] == ["unkillable"]
            with anyio.fail_after(1):
                assert [one["pid"] for one in await client.unkillable(1)] == [one["pid"] for one in left]
            assert alive(left[0]["pid"])
            os.kill(left[0]["pid"], signal.SIGKILL)
            with anyio.fail_after(10):
                assert (await client.exited(1)).exit_code == 0
    finally:
        process.close()


OLD = """
import sys
from leasehold.keeper import desk
desk.PROTOCOL = 1
sys.argv = sys.argv[6:]
from leasehold.keeper.__main__ import main
sys.exit(main())
"""
"""A keeper of an earlier release."""


@pytest.fixture
def silent_keeper(tmp_path):
    process = KeeperProcess(tmp_path / "state", "subreaper", prefix=(sys.executable, "-c", SILENT))
    process.start()
    yield process
    process.close()


@pytest.fixture
def old_keeper(tmp_path):
    process = KeeperProcess(tmp_path / "state", "subreaper", prefix=(sys.executable, "-c", OLD))
    process.start()
    yield process
    process.close()


def test_daemon_and_keeper_of_one_release_speak_one_protocol():
    assert link.PROTOCOL == protocol.PROTOCOL == 2


async def test_a_keeper_of_an_earlier_release_is_refused_in_plain_words(old_keeper):
    with pytest.raises(ExceptionGroup) as caught:
        async with linked(old_keeper):
            pass
    matched, _ = caught.value.split(KeeperMismatch)
    (error,) = matched.exceptions
    assert str(error).startswith("this keeper speaks protocol 1, not 2: restart the keeper")


async def test_doctor_says_that_the_keeper_is_of_an_earlier_release(old_keeper, plain_keeper):
    (_, well, detail), _ = await keeper_check(SimpleNamespace(socket=old_keeper.socket))
    assert not well and "speaks protocol 1, this program needs 2: restart the keeper" in detail
    old_keeper.kill()
    plain_keeper.start()
    (_, well, detail), _ = await keeper_check(SimpleNamespace(socket=plain_keeper.socket))
    assert well and "containment subreaper" in detail


async def test_a_keeper_that_cannot_speak_to_agents_is_known_before_anything_is_started(silent_keeper, plain_keeper):
    async with linked(silent_keeper) as client:
        assert not client.feeds
        kept = await started(client, 1, "cat", converses=True)
        with pytest.raises(KeeperRefused) as refused:
            await client.feed(1, "key", b"words")
        assert refused.value.code == "bad_request" and kept.inputs == 0
        await started(client, 2, "exit 4")
        assert (await client.exited(2)).exit_code == 4, "what needs no words runs as ever"
        silent_keeper.kill()
        plain_keeper.start()
        with anyio.fail_after(20):
            while not client.feeds:
                await anyio.sleep(0.05)


async def test_feed_as_the_daemon_asks(keeper):
    async with linked(keeper) as client:
        await started(client, 1, "cat", converses=True)
        long = "key " * 1000
        assert await client.feed(1, long, b"one\n") is True
        assert await client.feed(1, long, b"one\n") is False
        assert await client.feed(1, long + "another", b"\xff\n") is True
        assert await client.inputs(1, [long, long + "another", "no", long + "third"]) == {long, long + "another"}
        assert await client.inputs(1, []) == set()
        with pytest.raises(KeeperRefused) as refused:
            await client.feed(1, "huge", b"\x00" * (3 << 20))
        assert refused.value.code == "too_long"
        assert [run.inputs for run in await client.kept()] == [2]
        await client.close_stdin(1)
        assert (await client.exited(1)).exit_code == 0
    assert keeper.path(1, "stdout").read_bytes() == b"one\n\xff\n"
