"""Verdicts: the first wins, the same again is harmless, another is refused; and what becomes of the job."""

from datetime import timedelta

import pytest
from sql.wakes import enqueue


@pytest.mark.rule("S2", "S86", "S120", "A37", "A38", "A89", "P63", "P87", "O7", "O13", "X18")
async def test_a_verdict_settles_run_and_job_and_may_be_repeated(sql, worker, job, look, story, clock):
    born = await job()
    run = await worker.claim_one()
    await worker.start(run, {"pid": 42})
    await worker.start(run, {"pid": 42})
    await clock.forward(seconds=5)
    first = await worker.finish(run, exit_code=0, result='{"answer": 42}')
    assert tuple(first) == ("settled", "succeeded", None)
    assert tuple(await worker.finish(run)) == ("repeated", "succeeded", None)
    row = await look(born)
    assert (row["status"], row["reason"], row["result"], row["attempts"], row["finished_at"]) == (
        "succeeded", "ok", '{"answer": 42}', 1, clock.now,
    )  # fmt: skip
    assert await story(born) == ["queued", "started", "spawned", "succeeded"]


@pytest.mark.rule("SW7", "SW9", "A8", "A82", "A89", "A93", "P93", "PW6", "PW19", "O22", "OW4", "X18")
async def test_another_verdict_is_refused(worker, job, refused):
    await job()
    run = await worker.claim_one()
    await worker.finish(run)
    async with refused("LH010", f"run {run['run_id']} has ended as succeeded") as refusal:
        await worker.fail(run)
    assert refusal.error.detail == "outcome=succeeded reason=ok"
    async with refused("LH010"):
        await worker.start(run)


@pytest.mark.rule("S42", "S118", "SW4", "A29", "AW1", "P87", "GW16", "GW27", "OW4", "X13")
async def test_the_fence_is_run_worker_and_both_tokens(worker, hire, job, refused):
    """Rule 19."""
    await job()
    run = await worker.claim_one()
    other = await hire(instance="beta")
    async with refused("LH011", f"belongs to worker {worker.id}"):
        await other.finish(run)
    forged = dict(run) | {"run_token": worker.token}
    async with refused("LH011", "has another token"):
        await worker.finish(forged)
    async with refused("LH013", "there is no run 4711"):
        await worker.finish(dict(run) | {"run_id": 4711})
    other.id = worker.id
    async with refused("LH012", "has another token"):
        await other.finish(run)


async def test_an_expired_lease_still_settles_if_nobody_has_reaped(worker, job, clock):
    await job()
    run = await worker.claim_one()
    await clock.forward(hours=1)
    assert (await worker.finish(run))["disposition"] == "settled"


@pytest.mark.rule("P17")
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("failed", "nonsense"), ("failed", None), ("succeeded", "exit_code"), ("gone", "ok"), (None, None)],
)
async def test_outcome_and_reason_are_a_closed_table(worker, job, refused, outcome, reason):
    await job()
    run = await worker.claim_one()
    async with refused("LH014", "a run cannot end as"):
        await worker.finish(run, outcome, reason)


@pytest.mark.rule("S78", "SW10", "A9", "P62", "G29")
async def test_every_pair_of_the_table_settles_a_job(sql, worker, job, look, sane, clock):
    for row in await sql.fetch("select * from leasehold.reasons where reason <> 'crash_cap'"):
        born = await job(max_attempts=1)
        run = await worker.claim_job(born)
        answer = await worker.finish(run, row["outcome"], row["reason"])
        again = row["follows"] in ("again", "park") or (row["follows"] == "backoff" and not row["uses_attempt"])
        expected = "queued" if again else "failed" if row["outcome"] == "lost" else row["outcome"]
        assert answer["job_status"] == expected, row
        after = await look(born)
        if row["follows"] == "park":
            assert row["park"] <= answer["retry_at"] - clock.now <= row["park"] * 1.1
        assert (after["attempts"], after["interruptions"]) == ((1, 0) if row["uses_attempt"] else (0, 1))
        assert (after["finished_at"] is None) == (expected == "queued")
        if expected == "queued":
            await sql.execute("select leasehold.cancel($1)", born)
    await sane()


async def test_every_pair_of_the_table_leads_where_its_policy_says_while_attempts_are_left(sql, worker, job, clock):
    for row in await sql.fetch("select * from leasehold.reasons where reason <> 'crash_cap'"):
        born = await job(max_attempts=5)
        answer = await worker.finish(await worker.claim_job(born), row["outcome"], row["reason"])
        if row["follows"] == "stop":
            ends_as = "failed" if row["outcome"] == "lost" else row["outcome"]  # no job is "lost"
            assert tuple(answer) == ("settled", ends_as, None), row
            continue
        assert answer["job_status"] == "queued", row
        wait = answer["retry_at"] - clock.now
        low, high = {
            "again": (timedelta(0), timedelta(0)),
            "backoff": (timedelta(seconds=4.5), timedelta(seconds=5.5)),
            "park": (row["park"], (row["park"] or timedelta(0)) * 1.1),
        }[row["follows"]]
        assert low <= wait <= high, row
        await sql.execute("select leasehold.cancel($1)", born)


async def test_a_job_that_fills_the_disk_again_and_again_ends_at_last(worker, job, look, clock):
    await worker.renew(lease=timedelta(days=1))
    born = await job()
    for _ in range(10):
        assert (await look(born))["status"] == "queued"
        answer = await worker.finish(await worker.claim_job(born), "interrupted", "disk_full")
        await clock.forward(minutes=2)
    row = await look(born)
    assert (row["status"], row["reason"], row["attempts"]) == ("failed", "disk_cap", 0) and answer["retry_at"] is None


@pytest.mark.parametrize(("reason", "least"), [("quota", 15), ("rate_limit", 1), ("disk_full", 1)])
async def test_a_parked_job_waits_its_time_and_has_used_no_attempt(sql, worker, job, look, clock, reason, least):
    born = await job(max_attempts=1)
    answer = await worker.finish(await worker.claim_one(), "interrupted", reason, message="come back later")
    assert timedelta(minutes=least) <= answer["retry_at"] - clock.now <= timedelta(minutes=least * 1.1)
    row = await look(born)
    assert (row["status"], row["reason"], row["attempts"], row["run_at"]) == ("queued", reason, 0, answer["retry_at"])
    assert await sql.fetchval("select situation from leasehold.job_overview") == "waiting: parked, see reason"
    assert await sql.fetchval("select data ->> 'retry_at' from leasehold.events where kind = 'interrupted'") is not None
    assert await worker.claim() == []
    await worker.renew(lease=timedelta(hours=1))
    await clock.set(answer["retry_at"])
    assert (await worker.claim_one())["job_id"] == born


async def test_jobs_parked_together_do_not_come_back_together(worker, job):
    for _ in range(10):
        await job()
    back = {(await worker.finish(run, "interrupted", "quota"))["retry_at"] for run in await worker.claim(10)}
    assert len(back) == 10


async def test_a_job_whose_end_was_asked_for_is_neither_parked_nor_tried_again(sql, worker, job):
    for reason, outcome in (("quota", "interrupted"), ("exit_code", "failed"), ("stopped", "interrupted")):
        born = await job(max_attempts=5)
        run = await worker.claim_job(born)
        await sql.execute("select leasehold.cancel($1)", born)
        assert (await worker.finish(run, outcome, reason))["job_status"] == "cancelled"


async def test_the_table_of_reasons_makes_sense(sql):
    nonsense = await sql.fetch("""
        select reason, outcome from leasehold.reasons
         where (outcome in ('interrupted', 'lost') and uses_attempt)                        -- interrupted is not failed
            or (outcome = 'interrupted' and follows = 'stop')                               -- no status of a job is called so
            or (outcome = 'lost' and follows = 'stop' and reason <> 'unkillable')
            or (outcome in ('succeeded', 'blocked', 'cancelled') and follows <> 'stop')
            or (park is not null and park <= interval '0')
            or advice !~ '[.?]$'""")
    assert nonsense == []


@pytest.mark.rule("P17")
async def test_every_reason_of_the_contract_is_there(sql):
    wanted = [
        "exit_code",
        "signal",
        "oom",
        "spawn_not_found",
        "spawn_denied",
        "spawn_failed",
        "workspace_failed",
        "workspace_timeout",
        "workspace_busy",
        "spawn",
        "idle",
        "first_output",
        "linger",
        "total",
        "queue",
        "output_limit",
        "quota",
        "rate_limit",
        "auth",
        "context_overflow",
        "session_rejected",
        "max_turns",
        "budget",
        "refusal",
        "question",
        "protocol",
        "empty_output",
        "disagreement",
        "disk_full",
        "host_reboot",
        "daemon_restart",
        "lease_lost",
        "worker_lost",
        "keeper_lost",
        "unkillable",
        "cancelled",
        "stopped",
        "agent_error",
        "workspace_missing",
        "workspace_denied",
        "daemon_error",
        "crash_cap",
        "agent_retired",
        "coalesced",
        "quota_cap",
        "disk_cap",
        "workspace_cap",
        "credential_cap",
        "session_poisoned",
        "session_evicted",
        "credential_busy",
        "config_failed",
        "turn_interrupted",
        "ok",
    ]
    assert {row[0] for row in await sql.fetch("select distinct reason from leasehold.reasons")} == set(wanted)


async def test_what_costs_no_attempt_and_backs_off_waits_longer_each_time(worker, job, clock):
    """A keeper that hangs would otherwise be asked again every few seconds for ever."""
    born, waits = await job(), []
    for _ in range(4):
        answer = await worker.finish(await worker.claim_job(born), "timed_out", "spawn")
        waits.append((answer["retry_at"] - clock.now).total_seconds())
        await clock.set(answer["retry_at"])
    assert [round(wait / 5) for wait in waits] == [1, 2, 4, 8]


@pytest.mark.rule("A57", "O14")
async def test_a_failure_is_retried_with_backoff_until_the_attempts_are_used_up(worker, job, look, story, clock):
    born = await job(max_attempts=3)
    for base in (5, 10):
        answer = await worker.fail(await worker.claim_one(), message="exit 3")
        assert answer["job_status"] == "queued"
        assert timedelta(seconds=base * 0.9) <= answer["retry_at"] - clock.now <= timedelta(seconds=base * 1.1)
        assert await worker.claim() == []
        assert await worker.next_due() == answer["retry_at"] - clock.now
        await clock.forward(seconds=base * 1.1)
    assert (await worker.fail(await worker.claim_one(), message="exit 3"))["job_status"] == "failed"
    row = await look(born)
    assert (row["status"], row["reason"], row["message"], row["attempts"]) == ("failed", "exit_code", "exit 3", 3)
    assert await story(born) == [
        "queued",
        "started",
        "retry_scheduled",
        "started",
        "retry_scheduled",
        "started",
        "failed",
    ]


async def test_the_backoff_is_capped(sql, worker, job, clock):
    await sql.execute("update leasehold.agents set retry_backoff = '1 min', retry_backoff_max = '2 min'")
    await job(max_attempts=100)
    for _ in range(8):
        await worker.renew(lease=timedelta(hours=1))
        answer = await worker.fail(await worker.claim_one())
        await clock.set(answer["retry_at"])
        assert answer["retry_at"] - clock.now <= timedelta(seconds=132)


async def test_what_a_second_try_cannot_help_is_not_retried(worker, job):
    await job(max_attempts=5)
    assert (await worker.finish(await worker.claim_one(), "failed", "spawn_not_found"))["job_status"] == "failed"


async def test_an_interruption_uses_no_attempt_and_keeps_its_place(sql, worker, job, look, story, clock):
    born = await job()
    await clock.forward(seconds=10)
    await job()
    run = await worker.claim_one()
    assert (await worker.finish(run, "interrupted", "stopped"))["job_status"] == "queued"
    row = await look(born)
    assert (row["attempts"], row["interruptions"], row["losses"]) == (0, 1, 0)
    again = await worker.claim_one()
    assert (again["job_id"], again["attempt"]) == (born, 2)
    assert await story(born) == ["queued", "started", "interrupted", "started"]


async def test_interruptions_have_no_cap(worker, job):
    born = await job(max_losses=1)
    for _ in range(5):
        assert (await worker.finish(await worker.claim_job(born), "interrupted", "daemon_restart"))[
            "job_status"
        ] == "queued"


@pytest.mark.rule("S72", "P38", "P40", "P65", "P92", "PW20", "PW29")
async def test_the_end_of_a_job_hands_its_key_to_the_next_in_order(worker, job, look, story, sane):
    first, low, high = (
        await job(concurrency_key="k"),
        await job(concurrency_key="k"),
        await job(concurrency_key="k", priority=5),
    )
    run = await worker.claim_one()
    assert run["job_id"] == first and await worker.claim() == []
    await worker.finish(run)
    assert [(await look(j))["status"] for j in (low, high)] == ["deferred", "queued"]
    assert await story(high) == ["deferred", "promoted"]
    await worker.finish(await worker.claim_one())
    assert (await look(low))["status"] == "queued"
    await sane()


@pytest.mark.rule("S72", "P31")
async def test_a_job_that_waits_for_its_retry_keeps_its_key(worker, job, look):
    await job(concurrency_key="k", max_attempts=2)
    second = await job(concurrency_key="k")
    await worker.fail(await worker.claim_one())
    assert (await look(second))["status"] == "deferred"


class TestLateOutcome:
    """Rule 20: the verdict 'lost' stands, what really became of the run is written once, and counts if nothing has happened since."""

    @pytest.fixture
    async def lost(self, worker, hire, job, clock):
        await job(max_attempts=2)
        run = await worker.claim_one()
        await clock.forward(seconds=121)
        reaper = await hire(instance="beta")
        await reaper.reap()
        return run

    async def test_the_job_is_settled_with_it_if_it_is_still_queued(self, sql, worker, lost, look, story, sane):
        answer = await worker.finish(lost, exit_code=0, result='{"a": 1}')
        assert tuple(answer) == ("late", "succeeded", None)
        assert tuple(await worker.finish(lost)) == ("late", "succeeded", None)
        row = await look(lost["job_id"])
        assert (row["status"], row["attempts"], row["losses"], row["result"]) == ("succeeded", 1, 0, '{"a": 1}')
        run = await sql.fetchrow("select outcome, late_outcome ->> 'outcome' as late from leasehold.runs")
        assert tuple(run) == ("lost", "succeeded")
        assert await story(lost["job_id"]) == ["queued", "started", "lost", "late_outcome", "succeeded"]
        await sane()

    async def test_another_late_outcome_is_refused(self, worker, lost, refused):
        await worker.finish(lost)
        async with refused("LH010"):
            await worker.fail(lost)

    async def test_a_late_failure_uses_an_attempt_and_backs_off(self, worker, lost, look, story, clock, sane):
        answer = await worker.fail(lost)
        assert (answer["disposition"], answer["job_status"]) == ("late", "queued")
        assert answer["retry_at"] > clock.now
        assert (await look(lost["job_id"]))["attempts"] == 1
        assert await story(lost["job_id"]) == ["queued", "started", "lost", "late_outcome"]
        await sane()

    @pytest.mark.rule("AW28")
    async def test_a_newer_run_makes_it_an_event_only(self, worker, hire, lost, look, story):
        newer = await (await hire(instance="gamma")).claim_one()
        assert tuple(await worker.finish(lost)) == ("late", "running", None)
        assert newer["attempt"] == 2
        assert await story(lost["job_id"]) == ["queued", "started", "lost", "started", "late_outcome"]

    async def test_a_newer_run_that_has_ended_again_counts_too(self, worker, hire, lost, story):
        other = await hire(instance="gamma")
        await other.finish(await other.claim_one(), "interrupted", "stopped")
        assert tuple(await worker.finish(lost))[:2] == ("late", "queued")
        assert (await story(lost["job_id"]))[-2:] == ["interrupted", "late_outcome"]

    @pytest.mark.rule("SW6", "PW6")
    async def test_a_cancelled_job_stays_cancelled(self, sql, worker, lost, look):
        await sql.execute("select leasehold.cancel($1)", lost["job_id"])
        assert tuple(await worker.finish(lost)) == ("late", "cancelled", None)

    async def test_a_job_retried_by_hand_runs_again(self, sql, worker, lost):
        await sql.execute("select leasehold.cancel($1)", lost["job_id"])
        await sql.execute("select leasehold.retry($1)", lost["job_id"])
        assert (await worker.finish(lost))["job_status"] == "queued"

    async def test_the_next_life_can_deliver_it(self, hire, lost):
        successor = await hire()
        await successor.adopt()
        assert (await successor.finish(lost))["disposition"] == "late"

    @pytest.mark.rule("PW24", "X28")
    async def test_what_it_was_asked_since_is_not_done_yet(self, sql, worker, hire, fixer, clock, look, sane):
        await enqueue(sql, conflict_policy="coalesce", concurrency_key="k", prompt="one")
        run = await worker.claim_one()
        await clock.forward(seconds=121)
        await (await hire(instance="beta")).reap()
        job, disposition = await enqueue(sql, conflict_policy="coalesce", concurrency_key="k", prompt="two")
        assert (job, disposition) == (run["job_id"], "coalesced")
        assert tuple(await worker.finish(run))[:2] == ("late", "queued")
        assert (await look(job))["status"] == "queued"
        await sane()

    async def test_a_late_interruption_is_noted_and_changes_nothing(self, worker, lost):
        assert tuple(await worker.finish(lost, "interrupted", "lease_lost"))[:2] == ("late", "queued")

    @pytest.mark.rule("SW2", "P38")
    async def test_it_hands_on_the_key(self, sql, worker, hire, job, clock, look):
        first, second = await job(concurrency_key="k"), await job(concurrency_key="k")
        run = await worker.claim_job(first)
        await clock.forward(seconds=121)
        await (await hire(instance="beta")).reap()
        await worker.finish(run)
        assert [(await look(j))["status"] for j in (first, second)] == ["succeeded", "queued"]
