"""What a run is given to log in with: what its own agent has, for whoever holds the run and as long as it lives, and nothing else."""

import json

import pytest

ROW = (
    "insert into leasehold.agents (name, command, env, private_config, credential) values ($1, '{true}', $2, true, $3)"
)


@pytest.fixture
async def agents(sql, clock):
    """Two agents of two providers."""
    for name in ("one", "two"):
        await sql.execute(ROW, name, json.dumps({f"{name.upper()}_API_KEY": f"key-of-{name}"}), f"/srv/login-{name}")


@pytest.mark.rule("SW19", "SW38")
async def test_a_run_is_given_the_settings_of_its_own_agent_and_of_no_other(agents, hire, job):
    worker = await hire()
    for name in ("one", "two", "one"):
        [body] = await worker.read([await worker.claim_job(await job(agent=name))])
        assert json.loads(body["env"]) == {f"{name.upper()}_API_KEY": f"key-of-{name}"}
        assert body["credential"] == f"/srv/login-{name}"


@pytest.mark.rule("SW19")
async def test_they_do_not_leave_with_the_claim_nor_for_another_worker_nor_after_the_end(
    agents, hire, job, login, refused
):
    worker, other = await hire(), await hire(instance="beta")
    run = await worker.claim_job(await job(agent="one"))
    assert sorted(run.keys()) == ["attempt", "job_id", "run_id", "run_token"]
    assert await other.read([run]) == []
    await worker.finish(run)
    assert await worker.read([run]) == []
    producer = await login("leasehold_producer")
    async with refused("42501", hint=False):
        await producer.fetch("select env from leasehold.agents")
    async with refused("42501", hint=False):
        await producer.fetch("select credential from leasehold.agents")
