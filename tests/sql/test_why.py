"""why() tells the story of a job in plain sentences: what it waits for, how each attempt went, what happens next."""

import json
from datetime import timedelta

import pytest

UTC_NOON = "2030-01-01 12:00:00 UTC"
INSERTED = (
    f'It was inserted at {UTC_NOON} (just now) for tenant "default", project "site", into queue "night" with priority 5;'
    " 3 attempts may be used."
)


@pytest.fixture
def why(sql):
    """The story of a job, line by line, in UTC."""

    async def tell(job, connection=None):
        connection = connection or sql
        await connection.execute("set timezone = 'UTC'")
        return [row["why"] for row in await connection.fetch("select why from leasehold.why($1) why", job)]

    return tell


async def test_a_fresh_job_says_what_was_asked_and_that_nothing_stands_in_its_way(worker, job, why):
    born = await job(prompt="Make the tests pass\nquickly", max_attempts=3, priority=5, project="site", queue="night")
    assert await why(born) == [
        'Job 1 asks agent "fixer": "Make the tests pass quickly"',
        INSERTED,
        "It is queued.",
        "Nothing stands in its way: the next free worker takes it.",
        "Next: attempt 1 of 3 starts when a worker claims it.",
        "To end it: SELECT leasehold.cancel(1, 'why');",
    ]


async def test_each_thing_that_keeps_a_job_waiting_is_named_with_what_would_change_it(sql, worker, clock, job, why):
    born = await job(tenant="acme", queue="night", run_at=clock.now + timedelta(minutes=5))
    await sql.execute("select leasehold.pause_agent('fixer', 'the model is down')")
    await sql.execute("update leasehold.agents set max_running = 0")
    await sql.execute("insert into leasehold.queues values ('night', true, 0)")
    await sql.execute("insert into leasehold.tenants values ('acme', true, 0)")
    await sql.execute("update leasehold.workers set queues = '{day}'")
    story = await why(born)
    assert story[2:-2] == [
        "It is queued.",
        "Its time has not come: run_at is 2030-01-01 12:05:00 UTC (in 5 min).",
        "Its agent is paused (\"the model is down\"): SELECT leasehold.resume_agent('fixer');",
        "Its queue is paused: UPDATE leasehold.queues SET paused = false WHERE name = 'night';",
        "Its tenant is paused: UPDATE leasehold.tenants SET paused = false WHERE name = 'acme';",
        "Its agent is at its limit (0 live runs of max_running 0): UPDATE leasehold.agents SET max_running = 1 WHERE name = 'fixer';",
        "Its queue is at its limit (0 live runs of max_running 0): UPDATE leasehold.queues SET max_running = 1 WHERE name = 'night';",
        "Its tenant is at its limit (0 live runs of max_running 0): UPDATE leasehold.tenants SET max_running = 1 WHERE name = 'acme';",
        'No live worker listens to queue "night" (1 listens to other queues): see LEASEHOLD_QUEUES.',
    ]
    assert story[-2] == "Next: attempt 1 of 1 starts at 2030-01-01 12:05:00 UTC (in 5 min), if a worker is free then."
    for way_out in [line.partition(": ")[2] for line in story if line.endswith(";") and "cancel" not in line]:
        await sql.execute(way_out)
    assert not [line for line in await why(born) if "paused" in line]


async def test_limits_places_and_others_before_it_are_counted(sql, worker, job, why):
    await sql.execute("update leasehold.agents set max_running = 2")
    for _ in range(4):
        await job()
    await worker.claim(2)
    assert any(
        line.startswith("Its agent is at its limit (2 live runs of max_running 2): UPDATE") for line in await why(3)
    )
    await sql.execute("update leasehold.agents set max_running = null")
    assert "1 job of its queue, tenant and agent goes before it." in await why(4)
    await sql.execute("update leasehold.workers set capacity = 2")
    assert "All 2 places of the workers that listen to its queue are taken." in await why(4)


async def test_without_a_live_worker_it_says_so(fixer, clock, job, hire, why):
    born = await job()
    expected = "No worker is alive: start one with `leasehold daemon`, or look at the log of the one that should be."
    assert expected in await why(born)
    await hire()
    assert expected not in await why(born)
    await clock.forward(minutes=3)
    assert expected in await why(born)


async def test_a_job_that_is_overlooked_says_where_to_look(worker, clock, job, why):
    born = await job()
    await clock.forward(seconds=61)
    assert "It should have been claimed by now" in (await why(born))[3]


async def test_after_a_failover_it_says_until_when_nothing_is_claimed(sql, worker, clock, job, why):
    born = await job()
    await sql.execute("update leasehold.cluster set closed_until = $1", clock.now + timedelta(seconds=90))
    assert (await why(born))[3].startswith("Nothing is claimed until 2030-01-01 12:01:30 UTC (in 1 min 30 s)")


@pytest.mark.rule("P14")
async def test_a_deferred_job_names_the_one_it_is_behind(worker, job, why):
    for _ in range(3):
        await job(concurrency_key="repo-7")
    assert (await why(3))[2:] == [
        'It is deferred by its concurrency key "repo-7": job 1 has the key and is queued (SELECT * FROM leasehold.why(1);).',
        "1 job deferred by the same key goes before it.",
        "Next: it is queued when the job before it has ended.",
        "To end it: SELECT leasehold.cancel(3, 'why');",
    ]
    await worker.finish(await worker.claim_one())
    assert f"Its concurrency key was given to it at {UTC_NOON} (just now)." in await why(2)


@pytest.mark.rule("S74", "A7", "P56")
async def test_a_running_job_tells_of_its_lease_its_process_and_its_cancellation(sql, worker, clock, job, why):
    born = await job(max_attempts=2)
    run = await worker.claim_one()
    await clock.forward(seconds=2)
    await worker.start(run, {"pid": 4711, "containment": "cgroup"})
    assert (await why(born))[2:] == [
        "It is running: attempt 1 is running.",
        f"The lease of worker 1 was renewed at {UTC_NOON} (2 s ago) and ends at 2030-01-01 12:02:00 UTC (in 1 min 58 s).",
        f"Attempt 1 (run 1) was claimed at {UTC_NOON} (2 s ago) by worker 1 (alpha on host host).",
        "  It started 2 s later as process 4711, contained by cgroup.",
        "  It has been live for 2 s.",
        "Next: if this attempt fails, 1 more attempt may follow.",
        "To end it: SELECT leasehold.cancel(1, 'why');",
    ]
    await clock.forward(seconds=68)
    assert "renewals fail, see the daemon's log" in (await why(born))[3]
    await sql.execute("select leasehold.cancel(1, 'too long')")
    story = await why(born)
    assert '"postgres" asked for its end at 2030-01-01 12:01:10 UTC (just now): "too long".' in story
    assert story[-1] == "Next: it is cancelled when its processes are gone."
    await clock.forward(minutes=2)
    assert "another worker ends the run as lost when it has seen no renewal for 2 min." in (await why(born))[3]


@pytest.mark.rule("A7", "P1", "P61")
async def test_a_failed_attempt_has_its_verdict_advice_cost_and_last_words(sql, worker, clock, job, why):
    born = await job(max_attempts=2)
    run = await worker.claim_one()
    await worker.start(run, {"pid": 7, "containment": "sweep"})
    await clock.forward(seconds=90)
    await worker.ship(
        (run, "stdout", 0, b"not this"),
        (run, "stderr", 0, b"".join(b"line %d\n" % n for n in range(12))),
        (run, "stderr", 82, b"caf\xc3\xa9 \x1b[2J\nbad \xff\x00 bytes\n\n"),
    )
    resources = {"cpu_seconds": 1.5, "memory_peak": 3 << 20, "swept": 3, "tree": "sh\n  sleep 600\n"}
    await sql.execute(
        "select leasehold.finish_run($1, $2, $3, $4, 'failed', 'exit_code', 'exited with code 3', 3, resources => $5)",
        *worker.me, run["run_id"], run["run_token"], json.dumps(resources),
    )  # fmt: skip
    story = await why(born)
    assert story[4:] == [
        f"Attempt 1 (run 1) was claimed at {UTC_NOON} (1 min 30 s ago) by worker 1 (alpha on host host).",
        "  It started 0 s later as process 7, contained by sweep.",
        "  It failed at 2030-01-01 12:01:30 UTC (just now), after 1 min 30 s: exit_code, exited with code 3.",
        "  Advice: The program ended with a non-zero exit code: read the end of its stderr.",
        "  It used up one attempt.",
        "  It used 1.5 s of CPU, 3.0 MiB of memory at most.",
        "  3 processes of its tree had to be killed.",
        "  Its process tree before the kill:",
        "  | sh",
        "  |   sleep 600",
        "The end of its stderr, in attempt 1:",
        *[f"  | line {n}" for n in range(4, 12)],
        "  | café \ufffd[2J",
        r"  | bad \377\000 bytes",
        story[-2],
        "To end it: SELECT leasehold.cancel(1, 'why');",
    ]
    assert story[-2].startswith("Next: attempt 2 of 2 starts at 2030-01-01 12:01:3")


@pytest.mark.rule("P2")
@pytest.mark.parametrize(
    ("outcome", "reason", "message", "said", "after"),
    [
        ("succeeded", None, None, "It succeeded at", "Next: nothing. It is done."),
        ("failed", "exit_code", "exited with code 3", "It failed at", "Next: nothing. 1 attempt is used up."),
        ("timed_out", "total", None, "It timed out at", "Next: nothing. 1 attempt is used up."),
        ("blocked", "question", "which one?", "It was blocked at", "Next: nothing. 1 attempt is used up."),
        ("cancelled", "cancelled", None, "It was cancelled at", "Next: nothing. It was cancelled."),
    ],
)
async def test_an_ended_job_says_how_and_what_one_can_do(worker, job, why, outcome, reason, message, said, after):
    born = await job()
    await worker.finish(await worker.claim_one(), outcome, reason, message)
    story = await why(born)
    assert story[2].startswith(said)
    assert after in story
    assert (story[-1] == "To give it one more attempt: SELECT leasehold.retry(1);") == (outcome != "succeeded")


async def test_what_is_not_tried_again_says_that_it_is_the_reason(worker, job, why):
    born = await job(max_attempts=5)
    await worker.finish(await worker.claim_one(), "failed", "spawn_not_found", "no such program")
    story = await why(born)
    assert "Next: nothing. After spawn_not_found it is not tried again by itself." in story
    assert f"  It failed at {UTC_NOON} (just now), without having started: spawn_not_found, no such program." in story


@pytest.mark.rule("P83")
async def test_lost_attempts_late_outcomes_and_retries_are_told_in_order(sql, worker, clock, hire, job, why):
    born = await job(max_losses=1)
    run = await worker.claim_one()
    other = await hire(instance="beta")
    await clock.forward(minutes=3)
    await sql.execute("update leasehold.workers set lease_expires_at = $1 where id = 2", clock.now + timedelta(hours=1))
    assert await other.reap()
    story = await why(born)
    assert "Next: nothing. It has lost its worker 1 time (max_losses)." in story
    assert "  It used up no attempt." in story
    await sql.execute("select leasehold.retry(1)")
    await clock.forward(minutes=1)
    await worker.finish(run)
    await other.claim_one()
    story = await why(born)
    told = [
        "Attempt 1 (run 1) was claimed",
        "  Its real outcome arrived at 2030-01-01 12:04:00 UTC (just now): succeeded, ok.",
        '"postgres" retried it at 2030-01-01 12:03:00 UTC (1 min ago); it had failed.',
        "Attempt 2 (run 2) was claimed",
    ]
    places = [next(n for n, line in enumerate(story) if line.startswith(words)) for words in told]
    assert places == sorted(places)


async def test_a_dead_worker_whose_run_nobody_has_ended_yet_is_named(sql, worker, job, why):
    born = await job()
    await worker.claim_one()
    await sql.execute("select set_config('leasehold.actor', 'reap', false)")
    await sql.execute("update leasehold.workers set state = 'lost', ended_at = leasehold.clock()")
    assert "Worker 1 is lost: another worker ends the run as lost, and the job runs again." in await why(born)


async def test_of_very_many_attempts_the_last_ten_are_told(worker, clock, job, why):
    born = await job(max_attempts=20)
    for _ in range(12):
        await worker.fail(await worker.claim_one())
        await clock.forward(hours=1)
        await worker.sql.execute("update leasehold.workers set lease_expires_at = $1", clock.now + timedelta(hours=1))
    story = await why(born)
    assert len([line for line in story if line.startswith("Attempt ")]) == 10
    assert "2 earlier attempts are left out here: SELECT * FROM leasehold.runs WHERE job_id = 1;" in story


async def test_words_of_others_cannot_drive_the_terminal(worker, job, why):
    born = await job(prompt="x\x1b[2J\u202ey\x07")
    await worker.finish(await worker.claim_one(), "failed", "exit_code", "one\ntwo\x1b[0m " + "z" * 5000)
    for line in await why(born):
        assert line.isprintable() and len(line) < 1100


@pytest.mark.parametrize(
    ("span", "words"),
    [("0.04 s", "0 s"), ("0.44 s", "0.4 s"), ("2 s", "2 s"), ("59.9 s", "59 s"), ("60 s", "1 min"), ("200 s", "3 min 20 s"),
     ("2 hours", "2 h"), ("2 hours 59 min 59 s", "2 h 59 min"), ("49 hours", "2 d 1 h"), ("-90 s", "1 min 30 s")],
)  # fmt: skip
async def test_durations_read_as_people_say_them(sql, span, words):
    assert await sql.fetchval("select leasehold.spell($1::text::interval)", span) == words


@pytest.mark.rule("S35", "AW35")
async def test_a_reader_reads_the_story_of_its_own_tenants_only(sql, worker, job, login, refused, why):
    mine, other = await job(tenant="acme"), await job(tenant="globex")
    reader = await login("leasehold_reader", "acme")
    assert (await why(mine, reader))[0].startswith("Job 1 asks")
    for unknown in (other, 4711):
        async with refused("LH023", says=f"there is no job {unknown}"):
            await why(unknown, reader)


@pytest.mark.parametrize("role", ["producer", "worker", "admin"])
async def test_every_role_may_ask_why(fixer, job, login, why, role):
    assert await why(await job(), await login(f"leasehold_{role}"))


async def test_the_story_is_told_in_a_read_only_transaction(sql, worker, job, why):
    born = await job()
    await worker.ship((await worker.claim_one(), "stdout", 0, b"bad \xff"))
    async with sql.transaction(readonly=True):
        assert r"  | bad \377" in await why(born)
