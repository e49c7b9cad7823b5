"""What another has, a workspace or a credential: asked for ever later, not for ever, and everybody can read what it waits for."""

import json
from datetime import timedelta

import pytest

ORIGIN = "https://example.org/acme/app.git"
BUSY = [("workspace_busy", "workspace_cap"), ("credential_busy", "credential_cap")]
WORDS = "workspace 7 is in use by run 5"


@pytest.fixture
async def patient(sql, fixer, clock, hire):
    """A worker with a lease for the whole test."""
    return await hire(lease=timedelta(days=9))


@pytest.fixture
def meets(patient, clock):
    """One run of the job after the other that meets this, each when its time has come; the last answer and all the waits in minutes."""

    async def meet(job, reason, times=1, words=WORDS):
        waits = []
        for _ in range(times):
            answer = await patient.finish(await patient.claim_job(job), "interrupted", reason, message=words)
            if answer["retry_at"] is None:
                break
            waits.append((answer["retry_at"] - clock.now) / timedelta(minutes=1))
            await clock.set(answer["retry_at"])
        return answer, waits

    return meet


@pytest.fixture
async def quarantined(sql, patient, job):
    """A branch whose workspace has processes in it that nobody could kill; its id."""
    await sql.execute(
        "insert into leasehold.agents (name, adapter, command, repository) values ('mender', 'command', '{true}', $1)",
        ORIGIN,
    )
    run = await patient.claim_job(await job(agent="mender", branch="shared"))
    said = await take(patient, run)
    await patient.unkillable(run)
    return said["workspace"], run


async def take(worker, run):
    said = await worker.sql.fetchval(
        "select leasehold.take_workspace($1, $2, $3, $4)", *worker.me, run["run_id"], run["run_token"]
    )
    return json.loads(said)


async def lose(sql, run):
    """Its worker is gone, and nobody knows any more what became of its processes."""
    await sql.execute(
        "select leasehold.end_run('reap', r, 'lost', 'unkillable') from leasehold.runs r where id = $1", run["run_id"]
    )


async def why(sql, job):
    return [row["why"] for row in await sql.fetch("select why from leasehold.why($1) why", job)]


@pytest.mark.parametrize(("reason", "cap"), BUSY)
async def test_it_is_asked_for_ever_later_and_no_attempt_is_used(meets, job, look, reason, cap):
    born = await job(max_attempts=1)
    _, waits = await meets(born, reason, 6)
    assert [int(wait / 1.1 + 0.999) for wait in waits] == [1, 2, 4, 5, 5, 5], waits
    row = await look(born)
    assert (row["status"], row["reason"], row["message"], row["attempts"]) == ("queued", reason, WORDS, 0)


@pytest.mark.parametrize(("reason", "cap"), BUSY)
async def test_it_is_not_asked_for_for_ever(meets, job, look, sane, reason, cap):
    born = await job()
    answer, waits = await meets(born, reason, 400)
    assert answer["job_status"] == "blocked" and len(waits) == 299 and sum(waits) > 24 * 60
    row = await look(born)
    assert (row["status"], row["reason"], row["message"], row["attempts"]) == ("blocked", cap, WORDS, 0)
    await sane()


async def test_whoever_meets_something_else_begins_to_count_anew(meets, patient, job, clock):
    born = await job()
    await meets(born, "workspace_busy", 5)
    answer = await patient.finish(await patient.claim_job(born), "interrupted", "disk_full")
    await clock.set(answer["retry_at"])
    _, waits = await meets(born, "workspace_busy", 2)
    assert [round(wait) for wait in waits] == [1, 2]


async def test_what_waits_for_others_has_waited_its_queue_timeout_all_the_same(sql, meets, patient, job, look, clock):
    await sql.execute("update leasehold.agents set queue_timeout = '10 minutes'")
    born = await job()
    await meets(born, "workspace_busy", 3)
    assert await patient.expire() == []
    await clock.forward(minutes=4)
    assert await patient.expire() == [born]
    row = await look(born)
    assert (row["status"], row["reason"]) == ("timed_out", "queue")
    assert row["message"] == f"it waited longer than the queue_timeout of its agent: {WORDS}"


async def test_a_workspace_that_is_quarantined_is_named_with_what_frees_it(sql, quarantined, patient, job, meets, look):
    workspace, run = quarantined
    frees = f"SELECT leasehold.remove_workspace({workspace});"
    born = await job(agent="mender", branch="shared")
    while_live = await take(patient, other := await patient.claim_job(born))
    assert while_live["kind"] == "busy" and while_live["message"] == (
        f"workspace {workspace} on host host is quarantined: processes of run {run['run_id']} in it could not be killed;"
        f" it is free when they are gone, or, once that run is lost: {frees}"
    )
    await lose(sql, run)
    words = (await take(patient, other))["message"]
    assert words.endswith(f"could not be killed; look there, then: {frees}")
    await patient.finish(other, "interrupted", "workspace_busy", message=words)
    story = await why(sql, born)
    assert f"It has asked 1 time in a row for what is not free: {words}" in [line.rstrip(".") for line in story]
    assert "It asks ever later, is blocked if it has asked 20 times." in story


async def test_who_waits_for_one_that_is_quarantined_is_blocked_soon_and_goes_on_when_it_is_free(
    sql, quarantined, patient, job, meets, look, clock
):
    workspace, run = quarantined
    await lose(sql, run)
    born = await job(agent="mender", branch="shared")
    words = (await take(patient, first := await patient.claim_job(born)))["message"]
    await clock.set((await patient.finish(first, "interrupted", "workspace_busy", message=words))["retry_at"])
    answer, waits = await meets(born, "workspace_busy", 100, words)
    assert answer["job_status"] == "blocked" and len(waits) == 18 and sum(waits) < 100
    row = await look(born)
    assert row["reason"] == "workspace_cap" and f"remove_workspace({workspace})" in row["message"]
    assert any(f"SELECT leasehold.remove_workspace({workspace});" in line for line in await why(sql, born))
    await sql.execute(words[words.index("SELECT") :])
    await sql.execute("select leasehold.retry($1)", born)
    assert (await take(patient, await patient.claim_job(born)))["kind"] == "repository"


async def test_until_when_it_waits_is_told(sql, meets, job):
    await sql.execute("update leasehold.agents set queue_timeout = '10 minutes'")
    born = await job()
    await meets(born, "credential_busy", 2, "another run has had /a for longer than 60 s")
    story = await why(sql, born)
    assert "It has asked 2 times in a row for what is not free: another run has had /a for longer than 60 s." in story
    [line] = [line for line in story if line.startswith("It asks ever later")]
    assert "blocked if it has asked 300 times, and times out at 2030-01-01" in line
