"""What holds after every committed step, and what a refused statement must leave as it was."""

SANE = {
    "events have gaps": "select job_id from leasehold.events group by job_id having max(seq) <> count(*) or min(seq) <> 1",
    "heads differ from events": """select h.job_id from leasehold.heads h
        where h.seq <> (select count(*) from leasehold.events e where e.job_id = h.job_id)""",
    "jobs without a head": "select id from leasehold.jobs j where not exists (select from leasehold.heads h where h.job_id = j.id)",
    "two live runs of a job": "select job_id from leasehold.runs where ended_at is null group by job_id having count(*) > 1",
    "running without a live run": """select id from leasehold.jobs j where (status in ('running', 'waiting'))
        <> exists (select from leasehold.runs r where r.job_id = j.id and r.ended_at is null)""",
    "heads that fence another run": """select job_id from leasehold.heads h where (run_id, run_token) is distinct from
        (select (r.id, r.token) from leasehold.runs r where r.job_id = h.job_id and r.ended_at is null)
        and (run_id is not null or exists (select from leasehold.runs r where r.job_id = h.job_id and r.ended_at is null))""",
    "heads with a mark that their run did not set": """select job_id from leasehold.heads h where run_id is not null and mark >= 0
        and not exists (select from leasehold.events e where e.job_id = h.job_id and e.run_id = h.run_id and e.kind in ('message', 'usage', 'artifact'))
        and not exists (select from leasehold.messages m where m.run_id = h.run_id and m.source = 'agent')""",
    "two live jobs of a key": """select concurrency_key from leasehold.jobs
        where concurrency_key is not null and conflict_policy <> 'allow' and status in ('queued', 'running', 'waiting')
        group by tenant, concurrency_key having count(*) > 1""",
    "attempts that do not add up": """select j.id from leasehold.jobs j where attempts + interruptions
        <> (select count(*) from leasehold.runs r where r.job_id = j.id and r.ended_at is not null)""",
    "attempt numbers that skip": """select job_id from leasehold.runs group by job_id
        having max(attempt) <> count(*) or min(attempt) <> 1""",
    "more attempts than allowed": "select id from leasehold.jobs where attempts > max_attempts",
    "attempts and losses that their runs do not explain": """select j.id from leasehold.jobs j
        cross join lateral (select count(*) filter (where why.uses_attempt) as sure,
                                   count(*) filter (where why.uses_attempt or late.uses_attempt) as most,
                                   count(*) filter (where r.outcome = 'lost') as lost
                              from leasehold.runs r
                              join leasehold.reasons why on (why.outcome, why.reason) = (r.outcome, r.reason)
                              left join leasehold.reasons late on (late.outcome, late.reason)
                                = (r.late_outcome ->> 'outcome', r.late_outcome ->> 'reason')
                             where r.job_id = j.id) n
        where j.attempts not between n.sure and n.most or j.losses > n.lost""",
    "unfinished jobs that may not run again": """select id from leasehold.jobs where finished_at is null
        and (attempts >= max_attempts or losses >= max_losses)""",
    "a cancel that was forgotten": "select id from leasehold.jobs where status in ('queued', 'deferred') and cancel_requested_at is not null",
    "ends with a reason that the table does not know": """select id from leasehold.jobs where finished_at is not null
        and not exists (select from leasehold.reasons r where r.reason = jobs.reason)""",
    "agents over their limit": """select a.name from leasehold.agents a where a.max_running <
        (select count(*) from leasehold.runs r where r.agent = a.name and r.ended_at is null and not r.released)""",
    "tenants over their limit": """select t.name from leasehold.tenants t where t.max_running <
        (select count(*) from leasehold.runs r where r.tenant = t.name and r.ended_at is null and not r.released)""",
    "queues over their limit": """select q.name from leasehold.queues q where q.max_running <
        (select count(*) from leasehold.runs r where r.queue = q.name and r.ended_at is null and not r.released)""",
    "repositories over their limit": """select p.name from leasehold.repositories p where p.max_running <
        (select count(*) from leasehold.runs r where (r.tenant, r.repository) = (p.tenant, p.name) and r.ended_at is null and not r.released)""",
    "hosts over their limit": """select h.host_id from leasehold.hosts h where h.max_running <
        (select count(*) from leasehold.runs r where r.host_id = h.host_id and r.ended_at is null and not r.released)""",
    "all over their limit": """select c.max_running from leasehold.cluster c where c.max_running <
        (select count(*) from leasehold.runs r where r.ended_at is null and not r.released)""",
    "queued work that no lane or arrival knows": """select j.id from leasehold.jobs j where j.status = 'queued' and j.due
        and not exists (select from leasehold.lanes l where l.lane = j.lane and (l.active or l.parked_on is not null))
        and not exists (select from leasehold.arrivals a where a.lane = j.lane)""",
    "asks that do not say what became of their job": """select w.id from leasehold.wakeups w join leasehold.jobs j on j.id = w.job_id
        where (w.disposition = 'deferred' and (j.started_at is not null or j.status = 'queued'))
           or (w.disposition in ('accepted', 'promoted') and j.reason = 'coalesced')""",
    "asks of which their job knows nothing": """select w.id from leasehold.wakeups w join leasehold.jobs j on j.id = w.job_id
        where w.disposition in ('accepted', 'coalesced', 'deferred', 'promoted') and not j.context ?& array(select jsonb_object_keys(w.context))""",
    "asks that led to a job and do not say to which": """select id from leasehold.wakeups
        where job_id is null and disposition in ('accepted', 'coalesced', 'deferred', 'promoted', 'existing')""",
    "threads that say something else than their jobs": """select thread from leasehold.threads t
        full join (select j.tenant, j.thread, bool_or(j.finished_at is null) as active,
                          case when bool_or(j.status = 'running') then 'running' when bool_or(j.status = 'waiting') then 'waiting'
                               when bool_or(j.finished_at is null) then 'queued'
                               else (array_agg(j.status order by j.finished_at desc, j.id desc))[1] end as status
                     from leasehold.jobs j where j.thread is not null group by j.tenant, j.thread) s using (tenant, thread)
        where (t.status, t.active) is distinct from (case when coalesce(s.active, false) or t.last_job is not null then s.status else t.status end, coalesce(s.active, false))
        and not exists (select from leasehold.thread_moves m where (m.tenant, m.thread) = (coalesce(t.tenant, s.tenant), coalesce(t.thread, s.thread)))""",
    "turns that are open though their job has ended": """select t.id from leasehold.turns t join leasehold.jobs j on j.id = t.job_id
        where t.ended_at is null and j.finished_at is not null""",
    "turns given to a run that does not live": """select t.id from leasehold.turns t where t.state = 'acknowledged'
        and not exists (select from leasehold.runs r where r.id = t.run_id and r.job_id = t.job_id and r.ended_at is null)""",
    "turns whose numbers skip": "select job_id from leasehold.turns group by job_id having max(seq) <> count(*) or min(seq) <> 1",
    "words that are in no job that follows": """select t.id from leasehold.turns t join leasehold.jobs j on j.id = t.follow_up_job
        where t.outcome = 'follow_up' and position(t.text in j.prompt) = 0""",
    "interactions that are open though their run has ended": """select i.id from leasehold.interactions i join leasehold.runs r on r.id = i.run_id
        where (i.status = 'pending' or i.to_deliver) and r.ended_at is not null""",
    "jobs that wait for nobody": """select j.id from leasehold.jobs j where j.status = 'waiting'
        and not exists (select from leasehold.interactions i where i.job_id = j.id and i.status = 'pending')""",
    "jobs that ask and do not wait": """select j.id from leasehold.jobs j where j.status = 'running' and j.cancel_requested_at is null
        and exists (select from leasehold.interactions i where i.job_id = j.id and i.status = 'pending')""",
    "places given up by who does not wait": """select r.id from leasehold.runs r join leasehold.jobs j on j.id = r.job_id
        where r.released and r.ended_at is null and j.status <> 'waiting'""",
    "budgets that are used up and hold nothing": """select b.scope, b.name from leasehold.budgets b where leasehold.is_used_up(b)
        and not exists (select from leasehold.holds h where (h.scope, h.name, h.reason) = (b.scope, b.name, 'budget:' || b.period)
                         and coalesce(h.until, 'infinity') > leasehold.clock())""",
    "held for a budget that is not used up": """select h.scope, h.name from leasehold.holds h
        where h.reason like 'budget:%' and coalesce(h.until, 'infinity') > leasehold.clock()
        and not exists (select from leasehold.budgets b where (h.scope, h.name, h.reason) = (b.scope, b.name, 'budget:' || b.period)
                         and (leasehold.is_used_up(b) or b.since > leasehold.period_start(b.period, leasehold.clock())))""",
    "lanes in line whose tenant is not": """select l.lane from leasehold.lanes l where l.active
        and not exists (select from leasehold.shares s where s.tenant = l.tenant and (s.active or s.parked))""",
    "parked although there is room, and nobody has noted it": """select p.key from (
          select distinct l.parked_on as key from leasehold.lanes l where l.parked_on is not null
          union select 'tenant:' || s.tenant from leasehold.shares s where s.parked) p
        where leasehold.free_of(p.key) > 0
        and not exists (select from leasehold.holds h where h.scope || ':' || h.name = p.key and h.until <= leasehold.clock())
        and not exists (select from leasehold.arrivals a where a.lane is null and a.key is null and p.key in ('tenant:' || a.tenant,
          'queue:' || a.queue, 'agent:' || a.agent, 'account:' || a.account, 'repository:' || a.tenant || '/' || a.repository)
          or a.account = 'true' and p.key like 'account:%')""",
    "deferred without a holder or an arrival": """select j.id from leasehold.jobs j where j.status = 'deferred'
        and not exists (select from leasehold.jobs k where k.tenant = j.tenant and k.concurrency_key = j.concurrency_key and k.conflict_policy <> 'allow'
                         and k.status in ('queued', 'running', 'waiting'))
        and not exists (select from leasehold.arrivals a where a.tenant = j.tenant and a.key = j.concurrency_key)""",
    "messages that stream though their run has ended": """select m.id from leasehold.messages m where m.status = 'streaming'
        and not exists (select from leasehold.runs r where r.id = m.run_id and r.ended_at is null)""",
    "words that wait in a job that has ended": """select m.id from leasehold.messages m where m.status = 'queued'
        and not exists (select from leasehold.jobs j where j.id = m.job_id and j.finished_at is null)""",
    "turns that are not in the conversation": """select t.id from leasehold.turns t where t.kind <> 'interrupt' and t.outcome is distinct from 'moved'
        and not (t.outcome is not distinct from 'follow_up' and t.follow_up_job is null)      -- deleted, and its words with it
        and not exists (select from leasehold.messages m where m.turn_id = t.id and m.job_id = coalesce(t.follow_up_job, t.job_id)
                         and (m.status = 'queued') = (t.state = 'pending' or m.job_id <> t.job_id and m.run_id is null
                              and exists (select from leasehold.jobs j where j.id = m.job_id and j.finished_at is null)))""",
}


LIMITS = {
    "agents over their limit",
    "tenants over their limit",
    "queues over their limit",
    "repositories over their limit",
    "hosts over their limit",
    "all over their limit",
}  # unless somebody lowers one


async def assert_sane(sql, leaving_out=()):
    """The invariants that hold after every committed step."""
    parts = [
        f"select '{what}' as what, (array(select x::text from ({query}) x))[1:5] as which"
        for what, query in SANE.items()
        if what not in leaving_out
    ]
    rows = await sql.fetch(" union all ".join(parts))
    wrong = {row["what"]: row["which"] for row in rows if row["which"]}
    assert not wrong, wrong


async def footprint(sql):
    """What a refused statement must not change."""
    return await sql.fetchval("""
        select jsonb_build_object(
          'jobs', (select count(*) from leasehold.jobs), 'heads', (select sum(seq) from leasehold.heads),
          'events', (select count(*) from leasehold.events), 'output', (select count(*) from leasehold.output),
          'arrivals', (select count(*) from leasehold.arrivals), 'wakeups', (select count(*) from leasehold.wakeups), 'agents', (select jsonb_agg(a) from leasehold.agents a),
          'status', (select jsonb_object_agg(id, status || updated_at::text) from leasehold.jobs),
          'runs', (select jsonb_object_agg(id, status || worker_id) from leasehold.runs),
          'workers', (select jsonb_object_agg(id, state || renewals) from leasehold.workers))""")
