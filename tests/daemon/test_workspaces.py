"""The whole path: a job of a repository, its worktree, its agent, what it changed, and what is left of it."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from datetime import timedelta

import pytest
from support.repository import made

WORKSPACE = "select * from leasehold.workspaces order by id desc limit 1"
SAID = """
    select string_agg(said, ' ')
      from (select w::text as said from leasehold.workspaces w
            union all select e::text from leasehold.events e
            union all select r::text from leasehold.runs r
            union all select j::text from leasehold.jobs j
            union all select a::text from leasehold.artifacts a
            union all select leasehold.why(j.id) from leasehold.jobs j) all_of_it"""


@pytest.fixture
def repository(tmp_path, host):
    repository = made(tmp_path / "origin")
    host.environment |= repository.environment
    return repository


@pytest.fixture
def worker_in(agent, repository):
    """An agent whose runs work in the repository."""

    async def make(name, script, **columns):
        env = json.dumps(repository.environment)
        return await agent(name, script, **{"repository": str(repository.path), "env": env, **columns})

    return make


async def message(sql, job):
    return await sql.fetchval("select reason || ': ' || message from leasehold.jobs where id = $1", job)


@pytest.mark.rule("P50", "P52", "S90")
async def test_a_file_that_an_agent_changed_is_on_a_branch_of_its_own_and_recorded(
    host, sql, worker_in, insert, ends, written, repository
):
    await worker_in(
        "fixer",
        "echo fixed >> README.md; git commit -qam 'fix it'; echo new > n.txt; pwd; env | grep ^LEASEHOLD_ | sort",
    )
    async with host.daemon():
        job = await insert("fixer", "Fix the readme")
        await ends(job, "succeeded")
    row = await sql.fetchrow(WORKSPACE)
    path, branch = host.directory / row["path"], f"leasehold/{job}/fix-the-readme"
    assert (row["status"], row["branch"], row["base"], row["dirty"]) == ("free", branch, "main", True)
    assert row["base_commit"] == repository.git("rev-parse", "main") != row["head_commit"]
    assert repository.git("log", "-1", "--format=%s", branch, cwd=path) == "fix it"
    said = (await written(job)).decode().splitlines()
    assert said[0] == str(path)
    told = dict(line.split("=", 1) for line in said[1:])
    assert told["LEASEHOLD_WORKSPACE"] == str(path) and told["LEASEHOLD_WORKSPACE_SOURCE"] == "agent_repository"
    assert (told["LEASEHOLD_BRANCH"], told["LEASEHOLD_REPOSITORY"]) == (branch, str(repository.path))
    assert "LEASEHOLD_STAGE" not in told
    changes = await sql.fetch(
        "select path, change_type, source from leasehold.workspace_changes where job_id = $1 order by path", job
    )
    assert [tuple(each) for each in changes] == [("README.md", "modified", "agent"), ("n.txt", "added", "agent")]
    diff = await sql.fetchrow("select * from leasehold.artifacts where job_id = $1", job)
    assert diff["kind"] == "diff" and "+fixed" in diff["content"] and "+new" in diff["content"]
    assert host.strays() == []


async def test_two_jobs_of_one_repository_work_at_once_and_apart(host, sql, worker_in, insert, ends, eventually):
    await worker_in("pair", "echo $LEASEHOLD_JOB_ID > mine; while [ ! -e ../go ]; do sleep 0.05; done; cat mine; ls")
    async with host.daemon():
        jobs = [await insert("pair"), await insert("pair")]
        await eventually(sql, "select count(*) from leasehold.workspaces where status = 'in_use'", expected=2)
        [trees] = (host.directory / "workspaces").glob("*/trees")
        (trees / "go").touch()
        for job in jobs:
            await ends(job, "succeeded")
    assert await sql.fetchval("select count(distinct path) from leasehold.workspaces") == 2


async def test_two_jobs_of_one_branch_work_one_after_the_other(host, sql, worker_in, insert, ends, eventually):
    await sql.execute("update leasehold.reasons set park = '0.1 seconds' where reason = 'workspace_busy'")
    await worker_in("pair", "echo x >> log; while [ ! -e ../go ]; do sleep 0.05; done; wc -l < log")
    async with host.daemon():
        first = await insert("pair", branch="shared")
        await eventually(sql, "select count(*) from leasehold.workspaces where status = 'in_use'", expected=1)
        second = await insert("pair", branch="shared")
        await eventually(sql, "select reason from leasehold.jobs where id = $1", second, expected="workspace_busy")
        [trees] = (host.directory / "workspaces").glob("*/trees")
        (trees / "go").touch()
        await ends(first, "succeeded")
        await ends(second, "succeeded")
    assert await sql.fetchval("select attempts from leasehold.jobs where id = $1", second) == 1
    assert await sql.fetchval("select count(*) from leasehold.workspaces") == 1


@pytest.mark.parametrize(("keep", "stays"), [("always", True), ("never", False)])
async def test_a_worktree_is_kept_or_removed_as_the_row_says(
    host, sql, worker_in, insert, ends, eventually, keep, stays
):
    await worker_in("tidy", "echo x > x.txt", keep_workspace=keep)
    async with host.daemon(sweep="200ms"):
        job = await insert("tidy")
        await ends(job, "succeeded")
        if not stays:
            await eventually(sql, "select done_at is not null from leasehold.removals", expected=True)
    row = await sql.fetchrow(WORKSPACE)
    assert row["status"] == ("free" if stays else "removed")
    assert (host.directory / row["path"]).exists() is stays


@pytest.mark.rule("P50")
async def test_the_next_job_of_a_conversation_is_where_the_last_one_was(host, agent, insert, ends, written, worker_in):
    await worker_in("talker", "echo said >> talk.txt; pwd; cat talk.txt")
    await agent("plain", "echo said >> talk.txt; pwd; cat talk.txt")
    async with host.daemon():
        for name in ("talker", "plain"):
            words = []
            for _ in range(2):
                job = await insert(name, session_key="talk")
                await ends(job, "succeeded")
                words.append((await written(job)).decode().splitlines())
            assert words[0][0] == words[1][0] and words[1][1:] == ["said", "said"]


async def test_a_job_that_is_tried_again_goes_on_in_its_worktree(host, sql, worker_in, insert, ends, written):
    await worker_in(
        "twice",
        "if [ -e half ]; then cat half; else echo half > half; exit 1; fi",
        retry_backoff=timedelta(seconds=0.1),
    )
    async with host.daemon():
        job = await insert("twice", max_attempts=2)
        await ends(job, "succeeded")
    assert await written(job) == b"half\n"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"repository": "/nowhere/at/all"}, "workspace_failed: look: 'git ls-remote"),
        ({"base_branch": "nowhere"}, "workspace_failed: base: "),
        ({"prepare": '[["sh", "-c", "echo broken >&2; exit 4"]]'}, "workspace_failed: prepare 1: 'sh -c echo broken >&2; exit 4' exited with 4: broken"),
        ({"prepare": '[["sleep", "60"]]', "prepare_timeout": timedelta(seconds=0.8)}, "workspace_timeout: prepare 1: 'sleep 60' took too long"),
        ({"command": ["no-such-agent"]}, "spawn_not_found: agent: there is no program no-such-agent"),
        ({"env_file_path": ".env", "env_file_text": "x"}, "exit_code: "),
    ],
)  # fmt: skip
async def test_what_cannot_be_made_ready_is_a_reason_of_its_own(host, sql, worker_in, insert, ends, columns, says):
    await worker_in("bad", "cat .env >/dev/null && exit 9", **columns)
    async with host.daemon():
        job = await insert("bad")
        await ends(job, "timed_out" if "timeout" in says else "failed")
    assert (
        await message(sql, job) or await sql.fetchval("select reason || ': ' from leasehold.jobs where id = $1", job)
    ).startswith(says)
    assert await sql.fetchval("select status from leasehold.workspaces") == "free"
    assert host.strays() == []


async def test_a_token_in_the_address_of_a_repository_is_in_nothing_that_others_read(
    host, sql, worker_in, insert, ends, written
):
    token = "ghp_" + "t" * 36
    await worker_in("leaky", "true", repository=f"https://{token}@127.0.0.1:9/x.git")
    async with host.daemon():
        job = await insert("leaky")
        await ends(job, "failed")
    assert "https://***@127.0.0.1:9/x.git" in await message(sql, job)
    assert b"unable to access" in await written(job, "stderr")
    assert token.encode() not in await written(job, "stderr")
    assert token not in await sql.fetchval(SAID)
    assert token not in "".join(map(json.dumps, host.lines()))


async def test_a_preparation_has_a_clock_of_its_own(host, sql, worker_in, insert, ends, written):
    short = timedelta(seconds=0.7)
    await worker_in(
        "slow", "echo quick; sleep 30", prepare='[["sleep", "2"]]', first_output_timeout=short, idle_timeout=short,
    )  # fmt: skip
    async with host.daemon():
        job = await insert("slow")
        await ends(job, "timed_out")
    assert (await message(sql, job)).startswith("idle")
    assert await written(job) == b"quick\n"


async def test_an_agent_that_says_nothing_after_its_preparation_has_said_nothing(host, sql, worker_in, insert, ends):
    await worker_in(
        "mute",
        "sleep 30",
        prepare='[["sh", "-c", "echo much to say; sleep 1"]]',
        first_output_timeout=timedelta(seconds=0.7),
    )
    async with host.daemon():
        job = await insert("mute")
        await ends(job, "timed_out")
    assert (await message(sql, job)).startswith("first_output")


async def test_a_job_that_is_cancelled_is_stopped_and_what_it_changed_is_known(
    host, sql, worker_in, insert, ends, eventually
):
    await worker_in("slow", "echo x > x.txt; echo ready; sleep 60")
    async with host.daemon():
        job = await insert("slow")
        await eventually(sql, "select count(*) from leasehold.output", expected=1)
        await sql.execute("select leasehold.cancel($1)", job)
        await ends(job, "cancelled")
    assert await sql.fetchval("select string_agg(path, ' ') from leasehold.workspace_changes") == "x.txt"
    assert await sql.fetchval("select status from leasehold.workspaces") == "free" and host.strays() == []


async def test_one_that_is_cancelled_while_it_waits_for_the_lock_starts_no_agent(
    host, sql, worker_in, insert, ends, eventually
):
    await worker_in("locked", "echo never")
    async with host.daemon():
        first = await insert("locked")
        await ends(first, "succeeded")
        [lock] = (host.directory / "workspaces").glob("*/lock")
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            job = await insert("locked")
            await eventually(sql, "select status from leasehold.runs where job_id = $1", job, expected="running")
            await sql.execute("select leasehold.cancel($1)", job)
            await ends(job, "cancelled")
    assert await sql.fetchval("select count(*) from leasehold.output where job_id = $1 and stream = 'stdout'", job) == 0


async def test_a_stage_that_is_killed_ends_its_run_and_the_next_one_goes_on(
    host, sql, worker_in, insert, ends, eventually, written
):
    await worker_in("hurt", "echo x >> x.txt; wc -l < x.txt; [ $LEASEHOLD_ATTEMPT = 2 ] || sleep 60")
    async with host.daemon():
        job = await insert("hurt", max_attempts=2)
        await eventually(sql, "select count(*) from leasehold.output", expected=1)
        pid = json.loads(await sql.fetchval("select identity from leasehold.runs"))["pid"]
        os.kill(pid, signal.SIGKILL)
        await ends(job, "succeeded")
    assert await written(job) == b"2\n" and host.strays() == []
    assert await sql.fetchval("select array_agg(reason order by id) from leasehold.runs") == ["signal", "ok"]


async def test_a_daemon_that_is_killed_finds_the_run_and_records_its_changes(
    host, sql, worker_in, insert, ends, eventually, tmp_path
):
    await worker_in("long", f"echo begun; echo x > x.txt; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")
    async with host.daemon() as daemon:
        job = await insert("long")
        await eventually(sql, "select status from leasehold.workspaces", expected="in_use")
        await eventually(sql, "select count(*) from leasehold.output", expected=1)
        daemon.kill()
        await daemon.wait()
    (tmp_path / "go").touch()
    async with host.daemon():
        await ends(job, "succeeded")
    assert await sql.fetchval("select count(*) from leasehold.runs") == 1
    assert await sql.fetchval("select string_agg(path, ' ') from leasehold.workspace_changes") == "x.txt"
    assert await sql.fetchval("select count(*) from leasehold.artifacts") == 1
    assert await sql.fetchval("select status from leasehold.workspaces") == "free"


async def test_what_an_agent_writes_where_the_stage_reports_is_not_believed_too_far(host, sql, worker_in, insert, ends):
    script = (
        "import json, os, pathlib; run = pathlib.Path(os.environ['RUNS'], os.environ['LEASEHOLD_RUN_ID']);"
        "(run / 'stage.json').unlink(); os.mkfifo(run / 'stage.json'); os.mkfifo(run / 'changes.json.x'); os.symlink('/etc/passwd', run / 'final.diff')"
    )
    await worker_in(
        "liar", "", command=[sys.executable, "-c", script], env=json.dumps({"RUNS": str(host.directory / "runs")})
    )
    async with host.daemon():
        job = await insert("liar")
        await ends(job, "succeeded")
    assert await sql.fetchval("select count(*) from leasehold.artifacts where content like '%root:%'") == 0


@pytest.mark.rule("A74")
async def test_a_secret_of_the_env_file_is_in_no_log_and_no_row(
    host, sql, worker_in, insert, ends, written, repository
):
    await worker_in("reader", "wc -c < .env; ls -a", env_file_path=".env", env_file_text="TOKEN=verysecret\n")
    async with host.daemon():
        job = await insert("reader")
        await ends(job, "succeeded")
    assert (await written(job)).startswith(b"17\n")
    assert b"verysecret" not in host.log_file.read_bytes()
    assert b"verysecret" not in await asyncio.to_thread(everything, host.directory)
    said = await sql.fetchval(SAID)
    assert "verysecret" not in said and str(repository.path) in said and f"leasehold/{job}/do-it" in said


@pytest.mark.rule("PW43")
async def test_a_run_is_told_truly_where_it_works_and_works_nowhere_else(
    host, sql, agent, worker_in, insert, ends, written, tmp_path
):
    script = "echo $LEASEHOLD_WORKSPACE_SOURCE; pwd"
    (tmp_path / "home").mkdir()
    await worker_in("branched", script)
    await agent("homely", script, workspace=str(tmp_path / "home"))
    await agent("homeless", script)
    await agent("lost", script, workspace=str(tmp_path / "nowhere"))
    told = {}
    async with host.daemon():
        for who, columns in (("branched", {}), ("homely", {}), ("homeless", {}), ("homeless", {"session_key": "talk"})):
            job = await insert(who, **columns)
            await ends(job, "succeeded")
            source, path = (await written(job)).decode().split()
            told[source] = path
        lost = await insert("lost")
        await ends(lost, "failed")
    assert list(told) == ["agent_repository", "agent_directory", "run", "session"]
    assert told["agent_directory"] == str(tmp_path / "home") and len(set(told.values())) == 4
    assert str(tmp_path / "nowhere") in await message(sql, lost)
    assert await written(lost) == b"", "it has no other place to fall back to"


def everything(directory):
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
