"""All that can be seen of the database at one moment, in one statement, small enough to be compared with the moment before."""

import json

LOOK = """
select jsonb_build_object(
  'jobs', (select jsonb_object_agg(j.id, jsonb_build_object(
      'id', j.id, 'status', j.status, 'reason', j.reason, 'tenant', j.tenant, 'queue', j.queue, 'agent', j.agent,
      'key', j.concurrency_key, 'session', j.session_key, 'policy', j.conflict_policy, 'context', j.context, 'repository', j.repository,
      'again', j.idempotency_key, 'started', j.started_at is not null, 'priority', j.priority, 'attempts', j.attempts, 'interruptions', j.interruptions, 'losses', j.losses,
      'max_attempts', j.max_attempts, 'max_losses', j.max_losses, 'cancelling', j.cancel_requested_at is not null,
      'wait', extract(epoch from j.run_at - leasehold.clock()), 'waited_out', coalesce(j.waits_until <= leasehold.clock(), false)))
    from leasehold.jobs j),
  'heads', (select jsonb_object_agg(h.job_id, jsonb_build_object('seq', h.seq, 'mark', h.mark)) from leasehold.heads h),
  'runs', (select jsonb_object_agg(r.id, jsonb_build_object(
      'id', r.id, 'token', r.token, 'job', r.job_id, 'attempt', r.attempt, 'worker', r.worker_id, 'status', r.status,
      'tenant', r.tenant, 'queue', r.queue, 'agent', r.agent, 'repository', r.repository, 'host', r.host_id, 'live', r.ended_at is null, 'outcome', r.outcome, 'reason', r.reason,
      'verdict', jsonb_build_array(r.outcome, r.reason, r.message, r.exit_code, r.signal, r.result, r.output, r.ended_at),
      'cost', r.cost_usd, 'tokens', r.input_tokens, 'unpriced', r.unpriced, 'conversation', r.conversation,
      'passed', r.budget_passed_at is not null, 'late', r.late_outcome, 'unkillable', r.unkillable_since is not null, 'checkpoint', r.checkpoint,
      'released', r.released, 'input', exists (select from leasehold.turns t where t.job_id = r.job_id and t.state = 'pending' and t.deliverable)
        or exists (select from leasehold.interactions i where i.run_id = r.id and i.to_deliver)))
    from leasehold.runs r),
  'workers', (select jsonb_object_agg(w.id, jsonb_build_object(
      'id', w.id, 'token', w.token, 'instance', w.instance, 'keeper', w.keeper_id, 'boot', w.boot_id, 'queues', w.queues,
      'state', w.state, 'host', w.host_id, 'expired', w.lease_expires_at <= leasehold.clock(), 'renewals', w.renewals))
    from leasehold.workers w),
  'events', (select jsonb_object_agg(e.job_id || '/' || e.seq, jsonb_build_array(e.kind, e.run_id, e.message)) from leasehold.events e),
  'output', (select jsonb_object_agg(o.run_id || '/' || o.stream || '/' || o.byte_offset, encode(o.bytes, 'escape'))
    from leasehold.output o),
  'agents', (select jsonb_object_agg(a.name, jsonb_build_object('most', a.max_running, 'paused', a.status = 'paused',
      'account', coalesce(a.account, a.name), 'wakes', a.wake_on_demand, 'budget', a.budget_usd,
      'first_wait', extract(epoch from a.retry_backoff), 'longest_wait', extract(epoch from a.retry_backoff_max)))
    from leasehold.agents a),
  'tenants', (select jsonb_object_agg(t.name, jsonb_build_object('most', t.max_running, 'paused', t.paused)) from leasehold.tenants t),
  'queues', (select jsonb_object_agg(q.name, jsonb_build_object('most', q.max_running, 'paused', q.paused)) from leasehold.queues q),
  'asks', (select jsonb_object_agg(w.id, jsonb_build_object('id', w.id, 'tenant', w.tenant, 'again', w.idempotency_key,
      'disposition', w.disposition, 'job', w.job_id)) from leasehold.wakeups w),
  'holds', (select jsonb_object_agg(h.scope || ':' || h.name || ':' || h.reason, jsonb_build_object('scope', h.scope, 'name', h.name,
      'reason', h.reason, 'until', h.until, 'released', h.released, 'staggers', h.stagger is not null,
      'free', case when h.until > leasehold.clock() or h.until is null then 0 when h.stagger is null then 1000000
        else greatest(1 + floor(extract(epoch from leasehold.clock() - h.until) / extract(epoch from h.stagger)) - h.released, 0) end))
    from leasehold.holds h),
  'repositories', (select jsonb_object_agg(p.tenant || '/' || p.name, jsonb_build_object('most', p.max_running)) from leasehold.repositories p),
  'hosts', (select jsonb_object_agg(h.host_id, jsonb_build_object('most', h.max_running)) from leasehold.hosts h),
  'turns', (select jsonb_object_agg(t.id, jsonb_build_object('id', t.id, 'job', t.job_id, 'run', t.run_id, 'kind', t.kind, 'state', t.state,
      'again', t.idempotency_key is not null, 'ends', jsonb_build_array(t.outcome, t.why, t.ended_at))) from leasehold.turns t),
  'follow_ups', (select jsonb_agg(distinct t.follow_up_job) from leasehold.turns t where t.outcome = 'follow_up'),
  'asked', (select jsonb_object_agg(i.id, jsonb_build_object('id', i.id, 'job', i.job_id, 'run', i.run_id, 'status', i.status,
      'said', i.response ->> 'decision', 'answer', i.response)) from leasehold.interactions i),
  'sessions', (select jsonb_object_agg(s.tenant || '/' || s.agent || '/' || s.key, s.conversation) from leasehold.sessions s),
  'all', (select c.max_running from leasehold.cluster c),
  'usage', (select jsonb_object_agg(u.run_id || '/' || u.seq, jsonb_build_object('run', u.run_id, 'tenant', u.tenant, 'agent', u.agent,
      'cost', u.cost_usd, 'tokens', u.input_tokens, 'today', u.at >= date_trunc('day', leasehold.clock(), 'UTC'))) from leasehold.usage u),
  'days', (select jsonb_object_agg(d.id, jsonb_build_object('tenant', d.tenant, 'agent', d.agent, 'cost', d.cost_usd,
      'today', d.day >= (leasehold.clock() at time zone 'UTC')::date)) from leasehold.usage_days d),
  'budgets', (select jsonb_object_agg(b.scope || ':' || b.name || ':' || b.period, jsonb_build_object('scope', b.scope, 'name', b.name,
      'since', b.since, 'spent', b.spent_usd)) from leasehold.budgets b),
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
                setattr(self, name, {} if rows is None and name != "all" else rows)

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

    def claimable(self, worker):
        """Due jobs that nothing stands in the way of."""
        if self.stops("hosts", worker.host) or (self.all is not None and len(self.counted()) >= self.all):
            return []
        return [
            job
            for job in self.jobs.values()
            if job.status == "queued"
            and job.wait <= 0
            and (worker.queues is None or job.queue in worker.queues)
            and not any(self.stops(kind, name) for kind, name in limited(job))
            and not any(
                hold.free < 1 and self.covers(hold, job | {"host": worker.host}) for hold in self.holds.values()
            )
        ]

    def stops(self, kind, name):
        limit = getattr(self, kind).get(name)
        if limit is None:
            return False
        return limit.get("paused") or (limit.most is not None and self.running(kind, name) >= limit.most)

    def running(self, kind, name):
        return sum((kind, name) in limited(run) for run in self.counted())

    def counted(self):
        """Whoever waits for a human may count for no limit."""
        return [run for run in self.live() if not run.released]

    def covers(self, hold, start):
        """Does this hold concern the start of a job, there?"""
        return hold.name == {
            "all": "", "tenant": start["tenant"], "queue": start["queue"], "agent": start["agent"], "host": start["host"],
            "account": self.agents[start["agent"]].account, "repository": f"{start['tenant']}/{start['repository']}",
        }[hold.scope]  # fmt: skip

    def without(self, gone):
        """As if these jobs had never been."""
        left = Seen.__new__(Seen)
        left.__dict__.update(vars(self))
        runs = {n for n, run in self.runs.items() if run.job in gone}
        left.jobs, left.heads = (
            {n: row for n, row in rows.items() if n not in gone} for rows in (self.jobs, self.heads)
        )
        left.runs = {n: row for n, row in self.runs.items() if n not in runs}
        left.events = {n: row for n, row in self.events.items() if int(n.split("/")[0]) not in gone}
        left.output = {n: row for n, row in self.output.items() if int(n.split("/")[0]) not in runs}
        left.asks = {n: row for n, row in self.asks.items() if row.job not in gone}
        left.turns = {n: row for n, row in self.turns.items() if row.job not in gone}
        left.asked = {n: row for n, row in self.asked.items() if row.job not in gone}
        return left


def limited(one):
    """What a run, or a job, counts for."""
    yield from ((kind + "s", one[kind]) for kind in ("agent", "tenant", "queue"))
    if one.get("repository"):
        yield "repositories", f"{one['tenant']}/{one['repository']}"
    if one.get("host"):
        yield "hosts", one["host"]


async def look(sql):
    return Seen(await sql.fetchval(LOOK))
