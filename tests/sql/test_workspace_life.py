"""The life of a workspace beside that of its job: what it may be, who moves it, where it is and until when; and whose word counts."""

import json
from datetime import timedelta

import pytest
from sql.test_workspaces import report, row, take

ORIGIN = "https://example.org/acme/app.git"


@pytest.fixture
async def me(sql, clock, hire):
    await sql.execute(
        "insert into leasehold.agents (name, command, repository, base_branch) values ('fixer', '{true}', $1, 'main')",
        ORIGIN,
    )
    return await hire()


@pytest.fixture
async def begun(me, job):
    """A job with a run, and the workspace that it was given."""
    made = await job(max_attempts=2)
    run = await me.claim_job(made)
    return made, run, (await take(me, run))["workspace"]


@pytest.fixture
def both(sql, look):
    """The statuses of a job and of a workspace."""

    async def one(job, workspace):
        return (await look(job))["status"], (await row(sql, workspace))["status"]

    return one


@pytest.mark.rule("S21", "S84", "S122")
async def test_a_workspace_has_a_status_of_its_own_beside_its_jobs(sql, me, clock, begun, both, refused):
    job, run, workspace = begun
    assert await both(job, workspace) == ("running", "preparing")
    await me.start(run)
    await report(me, run, branch="b")
    assert await both(job, workspace) == ("running", "in_use")
    await me.fail(run)
    assert await both(job, workspace) == ("queued", "free"), "its job goes on, later"
    await clock.forward(minutes=1)
    again = await me.claim_job(job)
    assert (await take(me, again))["workspace"] == workspace
    assert await both(job, workspace) == ("running", "preparing")
    await me.finish(again)
    assert await both(job, workspace) == ("succeeded", "free")
    assert await sql.fetchval("select leasehold.remove_workspace($1)", workspace) == "removed"
    assert await both(job, workspace) == ("succeeded", "removed")
    async with refused("23514", hint=False):
        await sql.execute("update leasehold.workspaces set status = 'odd'")


@pytest.mark.rule("S81")
async def test_one_in_use_says_on_which_host_where_by_which_run_and_until_when(sql, me, clock, hire, begun):
    job, run, workspace = begun
    await report(me, run, branch="b", base_commit="a" * 40)
    kept = await row(sql, workspace)
    assert (kept["status"], kept["host_id"], kept["keeper_id"]) == ("in_use", "host", me.keeper)
    assert kept["path"].endswith(f"/trees/{workspace}") and kept["base_commit"] == "a" * 40
    assert (kept["job_id"], kept["run_id"], kept["used_at"]) == (job, run["run_id"], clock.now)
    until = """
        select k.lease_expires_at
          from leasehold.workspaces w
          join leasehold.runs r on r.id = w.run_id
          join leasehold.workers k on k.id = r.worker_id
         where w.id = $1"""
    first = await sql.fetchval(until, workspace)
    await clock.forward(minutes=1)
    await me.renew([run])
    assert await sql.fetchval(until, workspace) == first + timedelta(minutes=1), "as long as its worker's lease"
    await clock.forward(minutes=10)
    await (await hire(instance="beta")).reap()
    assert tuple(await sql.fetchrow("select status, run_id from leasehold.workspaces")) == ("free", None)


@pytest.mark.rule("S81", "S84", "S122")
async def test_only_the_worker_of_its_run_moves_it(me, hire, begun, both, refused):
    job, run, workspace = begun
    other = await hire(instance="beta")
    for call in (take, report):
        async with refused("LH011"):
            await call(other, run)
    assert await both(job, workspace) == ("running", "preparing")


@pytest.mark.rule("S84", "S122")
async def test_one_whose_processes_survive_is_nobodys_until_they_are_gone(me, begun, both):
    job, run, workspace = begun
    await me.unkillable(run)
    assert await both(job, workspace) == ("running", "quarantined")
    await me.finish(run)
    assert await both(job, workspace) == ("succeeded", "free")


@pytest.mark.rule("P16")
async def test_an_agent_works_in_a_directory_or_in_a_repository_or_in_a_place_of_the_runs_own(sql, me, job):
    await sql.execute("""
        insert into leasehold.agents (name, command, workspace) values ('homely', '{true}', '/srv/plain'), ('homeless', '{true}', null)""")
    for agent, kind, directory in (
        ("fixer", "repository", None),
        ("homely", "none", "/srv/plain"),
        ("homeless", "none", None),
    ):
        run = await me.claim_job(await job(agent=agent))
        [body], said = await me.read([run]), await take(me, run)
        assert (said["kind"], body["workspace"]) == (kind, directory)
        assert (said.get("repository"), said.get("base")) == ((ORIGIN, "main") if agent == "fixer" else (None, None))


@pytest.mark.rule("P49")
async def test_what_one_job_says_of_its_workspace_goes_before_its_agents_row_and_counts_for_it_alone(sql, me, job):
    await sql.execute("update leasehold.agents set env_file_path = '.env', env_file_text = 'A=1'")

    async def given(**columns):
        said = await take(me, await me.claim_job(await job(**columns)))
        return said["kind"], said.get("base"), (said.get("env_file") or {}).get("path")

    usual = ("repository", "main", ".env")
    assert await given() == usual
    assert await given(base_branch="release") == ("repository", "release", ".env")
    assert await given(env_file_path=".env.test") == ("repository", "main", ".env.test")
    assert await given(materialize_env_file=False) == ("repository", "main", None)
    assert await given(use_repository=False) == ("none", None, None)
    assert await given() == usual


@pytest.mark.rule("P49")
async def test_a_jobs_own_budget_goes_before_its_agents(sql, me, job):
    await sql.execute("update leasehold.agents set budget_usd = 1")
    bodies = {}
    for budget in (None, 7):
        run = await me.claim_job(await job(budget_usd=budget))
        said = json.dumps({"provider": "p", "model": "m", "cost_usd": 5})
        await sql.execute(
            "select * from leasehold.append_events($1, $2, $3, $4, $5, $6, $7, $8)",
            [run["run_id"]], [run["run_token"]], [1], ["usage"], ["info"], [None], [None], [said],
        )  # fmt: skip
        bodies[budget] = await sql.fetchval("select budget_passed_at from leasehold.runs where id = $1", run["run_id"])
    assert bodies[None] is not None and bodies[7] is None
