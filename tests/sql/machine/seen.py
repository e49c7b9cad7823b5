"""All that can be seen of the database at one moment, in one statement, small enough to be compared with the moment before."""

import json

LOOK = """
select jsonb_build_object(
  'jobs', (select jsonb_object_agg(j.id, jsonb_build_object(
      'id', j.id, 'status', j.status, 'reason', j.reason, 'tenant', j.tenant, 'queue', j.queue, 'agent', j.agent,
      'key', j.concurrency_key, 'priority', j.priority, 'attempts', j.attempts, 'interruptions', j.interruptions, 'losses', j.losses,
      'max_attempts', j.max_attempts, 'max_losses', j.max_losses, 'cancelling', j.cancel_requested_at is not null,
      'wait', extract(epoch from j.run_at - leasehold.clock()), 'waited_out', coalesce(j.waits_until <= leasehold.clock(), false)))
    from leasehold.jobs j),
  'heads', (select jsonb_object_agg(h.job_id, jsonb_build_object('seq', h.seq, 'mark', h.mark)) from leasehold.heads h),
  'runs', (select jsonb_object_agg(r.id, jsonb_build_object(
      'id', r.id, 'token', r.token, 'job', r.job_id, 'attempt', r.attempt, 'worker', r.worker_id, 'status', r.status,
      'tenant', r.tenant, 'queue', r.queue, 'agent', r.agent, 'live', r.ended_at is null, 'outcome', r.outcome, 'reason', r.reason,
      'verdict', jsonb_build_array(r.outcome, r.reason, r.message, r.exit_code, r.signal, r.result, r.output, r.ended_at),
      'late', r.late_outcome, 'unkillable', r.unkillable_since is not null, 'checkpoint', r.checkpoint))
    from leasehold.runs r),
  'workers', (select jsonb_object_agg(w.id, jsonb_build_object(
      'id', w.id, 'token', w.token, 'instance', w.instance, 'keeper', w.keeper_id, 'boot', w.boot_id, 'queues', w.queues,
      'state', w.state, 'expired', w.lease_expires_at <= leasehold.clock(), 'renewals', w.renewals))
    from leasehold.workers w),
  'events', (select jsonb_object_agg(e.job_id || '/' || e.seq, jsonb_build_array(e.kind, e.run_id, e.message)) from leasehold.events e),
  'output', (select jsonb_object_agg(o.run_id || '/' || o.stream || '/' || o.byte_offset, encode(o.bytes, 'escape'))
    from leasehold.output o),
  'agents', (select jsonb_object_agg(a.name, jsonb_build_object('most', a.max_running, 'paused', a.status = 'paused',
      'first_wait', extract(epoch from a.retry_backoff), 'longest_wait', extract(epoch from a.retry_backoff_max)))
    from leasehold.agents a),
  'tenants', (select jsonb_object_agg(t.name, jsonb_build_object('most', t.max_running, 'paused', t.paused)) from leasehold.tenants t),
  'queues', (select jsonb_object_agg(q.name, jsonb_build_object('most', q.max_running, 'paused', q.paused)) from leasehold.queues q),
  'open', (select c.timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8) and c.closed_until <= leasehold.clock()
    from leasehold.cluster c))
"""
DONE = ("succeeded", "failed", "blocked", "timed_out", "cancelled")


class Row(dict):
    """A JSON object whose members read as attributes."""

    __getattr__ = dict.__getitem__


class Seen:
    """One look: `seen.jobs[7].status`."""

    def __init__(self, text):
        for name, rows in json.loads(text, object_hook=Row).items():
            if name in ("jobs", "heads", "runs", "workers"):
                setattr(self, name, {int(key): row for key, row in (rows or {}).items()})
            else:
                setattr(self, name, {} if rows is None else rows)

    def live(self):
        return [run for run in self.runs.values() if run.live]

    def live_of(self, worker):
        return {run.id for run in self.live() if run.worker == worker.id}

    def may_work(self, worker):
        row = self.workers[worker.id]
        return row.state == "alive" and not row.expired

    def speaks(self, run):
        """Is this (id, token) the voice of a live run?"""
        row = self.runs.get(run["run_id"])
        return row is not None and row.live and row.token == str(run["run_token"])

    def lost(self, run):
        """Is this (id, token) a run that was given up as lost?"""
        row = self.runs.get(run["run_id"])
        return row is not None and row.token == str(run["run_token"]) and row.outcome == "lost"

    def claimable(self, queues):
        """Due jobs that nothing stands in the way of."""
        return [
            job
            for job in self.jobs.values()
            if job.status == "queued"
            and job.wait <= 0
            and (queues is None or job.queue in queues)
            and all(self.room(kind + "s", job[kind]) for kind in ("agent", "tenant", "queue"))
        ]

    def room(self, kind, name):
        limit = getattr(self, kind).get(name)
        return limit is None or (not limit.paused and (limit.most is None or self.running(kind, name) < limit.most))

    def running(self, kind, name):
        return sum(run[kind[:-1]] == name for run in self.live())


async def look(sql):
    return Seen(await sql.fetchval(LOOK))
