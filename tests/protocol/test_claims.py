"""Rules 10 to 12 replayed: answers of claims that are lost or late, and claims that outlive their worker."""

import signal

import pytest
from protocol.sql_tap import with_rows
from protocol.stage import PATIENT, SHORT

pytestmark = pytest.mark.race

RENEWALS = "select max(renewals) >= $1 from leasehold.workers"


@pytest.mark.rule("PW17", "OW3")
async def test_a_claim_whose_answer_is_lost_is_taken_up_by_a_later_renewal(stage, observer, agent, insert, ends, runs):
    """Rule 10: the claim commits, its answer is lost; the worker renews for ever and the run stays `starting`."""
    await agent("true", "true")
    async with stage.daemon():
        lost = stage.base.cut_at("claim", on="answer", when=with_rows)
        job = await insert("true")
        await lost.met()
        await ends(job, "succeeded")
        await stage.host.said("runs_taken_up")
    assert await runs(job) == [("succeeded", "ok")]
    assert len(stage.wire.asked("spawn")) == 1


async def test_a_renewal_that_overtakes_the_answer_of_a_claim_takes_up_nothing(
    stage, observer, sql, agent, insert, ends, eventually, runs
):
    """Rule 11: sent before the claim and answered during it; and sent and answered during it."""
    await agent("true", "true")
    async with stage.daemon():
        renewal = stage.base.hold("renew")
        await renewal.met()
        claim = stage.base.hold("claim", on="answer", when=with_rows)
        job = await insert("true")
        await claim.met()
        seen = await sql.fetchval("select max(renewals) from leasehold.workers")
        renewal.release()
        await eventually(sql, RENEWALS, seen + 3, expected=True)
        assert stage.wire.asked("spawn") == []
        claim.release()
        await ends(job, "succeeded")
        assert "runs_taken_up" not in {line["event"] for line in stage.host.lines()}
    assert await runs(job) == [("succeeded", "ok")]
    assert len(stage.wire.asked("spawn")) == 1


@pytest.mark.rule("SW3")
async def test_a_claim_and_a_renewal_that_arrive_after_their_worker_was_reaped_are_refused(
    stage, observer, other, sql, agent, insert, ends, eventually
):
    """Rule 12: the claim commits for a worker that nobody looks at any more; the renewal revives it."""
    await agent("true", "true")
    async with stage.daemon(**SHORT) as daemon:
        claim, renewal = stage.base.hold("claim"), stage.base.hold("renew")
        job = await insert("true", queue="quiet")
        await claim.met()
        await renewal.met()
        daemon.send_signal(signal.SIGSTOP)
        refusals = [stage.base.hold(call, on="answer") for call in ("claim", "renew")]
        worker = await sql.fetchval("select max(id) from leasehold.workers")
        async with other.daemon(**PATIENT, queues="nothing"):
            await eventually(
                sql, "select state from leasehold.workers where id = $1", worker, expected="lost", within=40
            )
        claim.release()
        renewal.release()
        for refusal in refusals:
            assert b"LH012" in await refusal.met(within=40)
            refusal.release()
        assert await sql.fetchval("select count(*) from leasehold.runs") == 0
        assert await sql.fetchval("select state from leasehold.workers where id = $1", worker) == "lost"
        daemon.send_signal(signal.SIGCONT)
        await stage.host.said("lease_lost")
        await ends(job, "succeeded")
    assert await sql.fetchval("select count(*) from leasehold.runs where worker_id = $1", worker) == 0


async def test_a_run_claimed_after_a_renewal_was_sent_is_not_missing_from_its_answer(
    stage, observer, sql, agent, insert, ends, started, runs
):
    """Rule 11: "missing" is judged against the list that was sent, not against what is here by now."""
    await agent("short", "until [ -e go ]; do sleep 0.05; done")
    async with stage.daemon():
        renewal = stage.base.hold("renew", on="answer")
        await renewal.met()
        job = await insert("short")
        await stage.host.said("claim_decided", runs=1)
        renewal.release()
        run = await started(job)
        assert not stage.wire.asked("stop", run_id=run)
        (stage.keeper.path(run, "workspace") / "go").touch()
        await ends(job, "succeeded")
    assert await runs(job) == [("succeeded", "ok")]
