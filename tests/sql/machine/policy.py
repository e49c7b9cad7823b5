"""The retry policy once more, in Python: what each ended run must have done to its job. For steps in which nobody else acted."""

import math
from types import SimpleNamespace

from sql.machine.keys import of_key
from sql.machine.seen import DONE


def check_policy(reasons, before, after):
    """Every run that ended, or whose late outcome came, in one single step."""
    for n, run in after.runs.items():
        was = before.runs.get(n)
        if was is None:
            continue
        job = before.jobs[run.job]
        if was.live and not run.live:
            same(follows(reasons, before, job, run.outcome, run.reason), after.jobs[run.job], run)
        elif run.late != was.late:
            late_counts = job.status == "queued" and run.late.outcome not in ("lost", "interrupted")
            if late_counts and not newer(before, run) and not retried_since(before, run):
                as_if = type(job)(job | {"losses": job.losses - 1, "interruptions": job.interruptions - 1})
                same(follows(reasons, before, as_if, run.late.outcome, run.late.reason), after.jobs[run.job], run)
            else:
                assert after.jobs[run.job] == job, f"a late outcome of run {n} changed job {job.id}"


def newer(seen, run):
    return any(other.job == run.job and other.attempt > run.attempt for other in seen.runs.values())


def retried_since(seen, run):
    story = [(int(n.split("/")[1]), *event) for n, event in seen.events.items() if n.startswith(f"{run.job}/")]
    last = max(seq for seq, _, of, _ in story if of == run.id)
    return any(kind == "retried" and seq > last for seq, kind, _, _ in story)


def follows(reasons, seen, job, outcome, reason):
    """What is to become of a job whose run has ended so. `wait` is (least, most) seconds, None: it is over."""
    policy = reasons[outcome, reason]
    to = SimpleNamespace(
        attempts=job.attempts + policy["uses_attempt"],
        interruptions=job.interruptions + (not policy["uses_attempt"]),
        losses=job.losses + (outcome == "lost"),
        reason=reason,
        status=outcome,
        wait=None,
    )
    if outcome == "succeeded":
        pass
    elif reason == "unkillable":
        to.status = "failed"
    elif job.cancelling or outcome == "cancelled":
        to.status, to.reason = "cancelled", "cancelled"
    elif outcome == "lost" and to.losses >= job.max_losses:
        to.status, to.reason = "failed", "crash_cap"
    elif policy["follows"] == "again":
        to.status, to.wait = "queued", (min(job.wait, 0),) * 2
    elif policy["follows"] == "park":
        least = policy["park"].total_seconds()
        busy = reason in ("workspace_busy", "credential_busy")  # the longer, the more often it was asked for in a row
        to.status, to.wait = "queued", (least, least * (5.5 if busy else 1.1))
    elif policy["follows"] == "backoff" and to.attempts < job.max_attempts:
        agent = seen.agents[job.agent]
        times = to.attempts if policy["uses_attempt"] else to.interruptions
        first = min(agent.longest_wait, agent.first_wait * 2 ** max(times - 1, 0))
        to.status, to.wait = "queued", (first * 0.9, first * 1.1)
    return to


def same(to, job, run):
    for name in ("status", "reason", "attempts", "interruptions", "losses"):
        assert job[name] == getattr(to, name), (
            f"run {run.id} ended as {run.verdict}: {name} of job {job.id} is {job[name]}, not {to}"
        )
    if to.wait:
        least, most = to.wait
        assert least - 0.01 <= job.wait <= most + 0.01 or math.isclose(job.wait, least), (
            f"job {job.id} waits {job.wait}, not {to.wait}"
        )


def check_keys(before, after, actors):
    """Whoever ended the live job of a key has handed the key on, to the one that is next."""
    for held in before.jobs.values():
        if held.key is None or held.policy == "allow" or held.status in ("deferred", *DONE):
            continue
        now = after.jobs.get(held.id)
        if now is not None and now.status not in DONE:
            continue
        waited = {job.id for job in of_key(before, held.tenant, held.key) if job.status == "deferred"}
        waited |= {n for n in after.follow_ups if n not in before.jobs}  # what its turns have become waits, too
        left = [job for job in of_key(after, held.tenant, held.key) if job.id in waited]
        if left:
            first = next((job for job in left if not before.agents[job.agent].paused), left[0])
            alive = [job.id for job in left if after.jobs[job.id].status != "deferred"]
            right = alive == [first.id] or ("expire" in actors and len(alive) == 1)
            assert right, f"{held.key} of job {held.id} went to {alive}, not to {first.id}"
