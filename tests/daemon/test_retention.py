"""What is past its time goes by itself, from the database and from the disk, and a crash at any point only puts it off."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from leasehold.retention.beneath import remove_beneath

QUICK = {"sweep": "200ms"}
SHORT = {"lease": "4s", "renewal": "0.8s", "margin": "1.5s", "grace": "0.5s", **QUICK}
WANT = """insert into leasehold.removals (host_id, keeper_id, what, path)
select host_id, keeper_id, $1, $2 from leasehold.workers order by id desc limit 1 returning id"""
DONE = "select done_at is not null from leasehold.removals where id = $1"


def fill(directory):
    (directory / "deep" / "deeper").mkdir(parents=True)
    (directory / "deep" / "file").write_text("x")
    return directory


@pytest.mark.rule("G48")
async def test_a_job_past_its_time_goes_by_itself(host, sql, agent, insert, ends, eventually):
    await agent("true", "echo hello")
    async with host.daemon(**QUICK):
        job = await insert("true")
        await ends(job, "succeeded")
        await sql.execute("update leasehold.retention set keep = '0' where what = 'jobs'")
        await eventually(sql, "select count(*) from leasehold.jobs", expected=0)
        for table in ("heads", "events", "runs", "output"):
            assert await sql.fetchval(f"select count(*) from leasehold.{table}") == 0, table
        await host.said("rows_removed", what="jobs", rows=1)


async def test_a_directory_that_is_wanted_gone_goes_and_its_neighbour_stays(host, sql, eventually):
    async with host.daemon(**QUICK):
        gone, stays = fill(host.directory / "sessions" / "one"), fill(host.directory / "sessions" / "two")
        removal = await sql.fetchval(WANT, "session", "sessions/one")
        await eventually(sql, DONE, removal, expected=True)
        assert not gone.exists() and (stays / "deep" / "file").exists()


async def test_one_that_fails_blocks_no_other(host, sql, eventually, tmp_path):
    async with host.daemon(**QUICK):
        treasure = fill(tmp_path / "treasure")
        (host.directory / "sessions").mkdir()
        (host.directory / "sessions" / "link").symlink_to(treasure)
        (host.directory / "sessions" / "door").symlink_to(treasure)
        (host.directory / "runs" / "4711").symlink_to(treasure)
        fill(host.directory / "sessions" / "good")
        bad = [await sql.fetchval(WANT, "session", path) for path in ("sessions/link", "sessions/door/deep")]
        bad.append(await sql.fetchval(WANT, "run", "runs/4711"))
        good = await sql.fetchval(WANT, "session", "sessions/good")
        await eventually(sql, DONE, good, expected=True)
        for removal in bad:
            await eventually(
                sql, "select error is not null from leasehold.removals where id = $1", removal, expected=True
            )
            assert not await sql.fetchval(DONE, removal)
        assert (treasure / "deep" / "deeper").is_dir() and (treasure / "deep" / "file").is_file()


async def test_what_agents_have_locked_goes_all_the_same(host, sql, eventually):
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root is let in everywhere, but for what setpriv takes from it")
        host.start = without_root
    async with host.daemon(**QUICK):
        locked = fill(host.directory / "sessions" / "one")
        for path in (locked / "deep" / "deeper", locked / "deep", locked):
            path.chmod(0)
        removal = await sql.fetchval(WANT, "session", "sessions/one")
        await eventually(sql, DONE, removal, expected=True)
        assert not os.path.lexists(locked)
        async with asyncio.timeout(20):
            while list(host.directory.glob("trash-*")):
                await asyncio.sleep(0.05)


async def without_root(word, env, **streams):
    """A daemon, and its keeper, that modes of files keep out."""
    no = "-dac_override,-dac_read_search"
    prefix = ("setpriv", f"--inh-caps={no}", f"--bounding-set={no}", "--")
    return await asyncio.create_subprocess_exec(*prefix, sys.executable, "-m", "leasehold", word, env=env, **streams)


@pytest.mark.parametrize(
    "path", ["../x", "sessions/../x", "sessions", "/etc/x", "sessions//x", "runs/7", "sessions/.", "keeper.sock"]
)
def test_no_path_leads_out_of_its_room(tmp_path, path):
    state = tmp_path / "state"
    fill(state / "sessions" / "x")
    fill(state / "runs" / "7")
    fill(tmp_path / "x")
    with pytest.raises(OSError, match="no directory that may be removed"):
        remove_beneath(state, path)
    assert all(
        (place / "deep" / "file").exists() for place in (state / "sessions" / "x", state / "runs" / "7", tmp_path / "x")
    )


def test_a_state_directory_may_be_a_link_what_lies_below_may_not(tmp_path):
    fill(tmp_path / "real" / "sessions" / "one")
    fill(tmp_path / "elsewhere" / "two")
    (tmp_path / "state").symlink_to(tmp_path / "real")
    remove_beneath(tmp_path / "state", "sessions/one")
    assert not (tmp_path / "real" / "sessions" / "one").exists()
    (tmp_path / "real" / "workspaces").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="directory"):
        remove_beneath(tmp_path / "state", "workspaces/two")
    assert (tmp_path / "elsewhere" / "two").exists()


def test_what_is_gone_already_is_gone(tmp_path):
    remove_beneath(tmp_path, "sessions/one/two")
    (tmp_path / "sessions").mkdir()
    remove_beneath(tmp_path, "sessions/one")


@pytest.mark.rule("GW20")
@pytest.mark.race
async def test_a_crash_between_decision_and_removal_only_puts_it_off(host, sql, eventually):
    async with host.daemon(**QUICK) as daemon:
        directory = fill(host.directory / "runs" / "4711")
        daemon.send_signal(signal.SIGSTOP)
        removal = await sql.fetchval(WANT, "run", "runs/4711")
        daemon.kill()
        await daemon.wait()
    assert directory.is_dir()
    async with host.daemon(**QUICK):
        await eventually(sql, DONE, removal, expected=True)
        assert not directory.exists()


@pytest.mark.race
async def test_a_crash_between_removal_and_its_note_is_no_harm(host, sql, eventually):
    await sql.execute("""create function pg_temp_no() returns trigger language plpgsql as $$ begin raise 'not now'; end $$;
        create trigger no before update of done_at on leasehold.removals for each row execute function pg_temp_no()""")
    async with host.daemon(**QUICK) as daemon:
        directory = fill(host.directory / "runs" / "4711")
        removal = await sql.fetchval(WANT, "run", "runs/4711")
        await host.said("chore_failed", chore="remove")
        assert not directory.exists() and not await sql.fetchval(DONE, removal)
        daemon.kill()
        await daemon.wait()
    await sql.execute("drop trigger no on leasehold.removals")
    await sql.execute("update leasehold.removals set next_at = leasehold.clock()")
    async with host.daemon(**QUICK):
        await eventually(sql, DONE, removal, expected=True)


@pytest.mark.race
async def test_the_directory_of_a_lost_run_goes_with_its_job_even_if_its_host_was_down(
    host_at, sql, agent, insert, ends, eventually
):
    await agent("sleeper", "sleep 60")
    one, two = host_at("one"), host_at("two")
    async with one.daemon(**SHORT) as daemon:
        job = await insert("sleeper", max_losses=1)
        await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=1)
        run = await sql.fetchval("select id from leasehold.runs")
        daemon.kill()
        await daemon.wait()
    async with two.daemon(**SHORT, queues="elsewhere"):
        await ends(job, "failed", within=40)
        await sql.execute("select leasehold.delete_job($1)", job)
        assert await sql.fetchval("select path from leasehold.removals") == f"runs/{run}"
        assert (one.directory / "runs" / str(run)).is_dir()
    async with one.daemon(**SHORT):
        await eventually(sql, "select count(*) from leasehold.removals where done_at is not null", expected=1)
        assert not (one.directory / "runs" / str(run)).exists()


async def test_orphans_go_after_a_rest_and_what_lives_stays(host, sql, agent, insert, eventually):
    await agent("sleeper", "sleep 60")
    await sql.execute("update leasehold.retention set keep = '1 hour' where what = 'orphans'")
    async with host.daemon(**QUICK):
        await insert("sleeper")
        await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=1)
        live = host.directory / "runs" / str(await sql.fetchval("select id from leasehold.runs"))
        orphan = fill(host.directory / "runs" / "4711")
        (host.directory / "runs" / "notes").mkdir()
        await eventually(sql, "select array_agg(path) from leasehold.removals", expected=["runs/4711"])
        await asyncio.sleep(0.5)
        assert orphan.is_dir() and await sql.fetchval("select count(*) from leasehold.removals") == 1
        await sql.execute("update leasehold.removals set next_at = leasehold.clock()")
        await eventually(sql, "select count(*) from leasehold.removals where done_at is not null", expected=1)
        assert not orphan.exists() and live.is_dir() and (host.directory / "runs" / "notes").is_dir()


async def test_a_run_whose_processes_live_is_not_removed_whoever_wants_it(host, sql, agent, insert, eventually):
    await agent("sleeper", "sleep 60")
    async with host.daemon(**QUICK):
        await insert("sleeper")
        await eventually(sql, "select count(*) from leasehold.runs where status = 'running'", expected=1)
        run = await sql.fetchval("select id from leasehold.runs")
        pid = json.loads(await sql.fetchval("select identity from leasehold.runs"))["pid"]
        token = await sql.fetchval("select gen_random_uuid()")
        removal = await sql.fetchval(WANT, "run", f"runs/{run}")
        await sql.execute("update leasehold.removals set token = $1", token)  # so that SQL does not see it either
        await eventually(
            sql, "select error from leasehold.removals where id = $1", removal, expected="its processes live"
        )
        assert Path(f"/proc/{pid}").exists() and (host.directory / "runs" / str(run)).is_dir()
