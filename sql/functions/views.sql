-- Two views for people: how the queues stand, and one line per job. Both see what the caller may see.

drop view if exists leasehold.queue_stats;
create view leasehold.queue_stats with (security_invoker = true) as
with counted as (
  select j.tenant, j.queue, j.agent,
         count(*) filter (where j.status = 'queued' and j.run_at <= leasehold.clock()) as queued,
         count(*) filter (where j.status = 'queued' and j.run_at > leasehold.clock()) as ahead,
         count(*) filter (where j.status = 'deferred') as deferred,
         count(*) filter (where j.status in ('running', 'waiting')) as running,
         count(*) filter (where j.status = 'waiting') as waiting,
         count(*) filter (where j.finished_at is null) as live,
         min(j.run_at) filter (where j.status = 'queued' and j.run_at <= leasehold.clock()) as oldest,
         count(*) filter (where j.status = 'succeeded') as succeeded,
         count(*) filter (where j.status in ('failed', 'blocked', 'timed_out')) as failed,
         count(*) filter (where j.status = 'cancelled') as cancelled,
         avg(j.finished_at - j.started_at) filter (where j.status = 'succeeded') as average
    from leasehold.jobs j
   where j.finished_at is null
      or j.finished_at > leasehold.clock() - interval '1 hour'
   group by j.tenant, j.queue, j.agent
), quarantined as (
  select r.tenant, r.queue, r.agent, count(*) as runs
    from leasehold.runs r
   where r.ended_at is null
     and r.unkillable_since is not null
   group by r.tenant, r.queue, r.agent
)
select c.tenant, c.queue, c.agent, a.status as agent_status,
       c.queued, c.ahead, c.deferred, c.running, coalesce(q.runs, 0) as unkillable,
       leasehold.clock() - c.oldest as oldest_waits,
       c.succeeded as succeeded_last_hour,
       c.failed as failed_last_hour,
       c.cancelled as cancelled_last_hour,
       c.average as average_duration,
       c.waiting, c.live as total, leasehold.clock() as generated_at
  from counted c
  left join leasehold.agents a
    on a.name = c.agent
  left join quarantined q
    on q.tenant = c.tenant
   and q.queue = c.queue
   and q.agent = c.agent;

drop view if exists leasehold.job_overview;
create view leasehold.job_overview with (security_invoker = true) as
select j.id, j.tenant, j.project, j.queue, j.agent, j.kind,
       coalesce(j.title, left(split_part(j.prompt, e'\n', 1), 80)) as title,
       j.status,
       case
         when r.ended_at is null and r.unkillable_since is not null then 'quarantined: its processes cannot be killed'
         when j.status in ('running', 'waiting') and j.cancel_requested_at is not null then 'stopping: its end was asked for'
         when j.status = 'waiting' then 'waiting: for a human, see leasehold.interactions'
         when j.status = 'queued' and a.name is null then 'waiting: there is no such agent'
         when j.status = 'queued' and a.status = 'paused' then 'waiting: the agent is paused'
         when j.status = 'queued' and a.status = 'retired' then 'waiting: the agent is retired'
         when j.status = 'queued' and a.status = 'pending_approval' then 'waiting: the agent is not approved yet'
         when j.status = 'queued' and j.run_at > leasehold.clock()
              and exists (select from leasehold.reasons p where p.reason = j.reason and p.follows = 'park') then 'waiting: parked, see reason'
         when j.status = 'queued' and j.run_at > leasehold.clock() then 'waiting: its time has not come'
         when j.status = 'queued' then 'waiting: for a free worker'
         when j.status = 'deferred' then 'waiting: for the other job with its concurrency key'
         else r.phase
       end as situation,
       j.reason, j.message, j.priority, j.attempts, j.max_attempts, j.interruptions,
       r.id as run_id, r.attempt, r.worker_id, r.status as run_status, r.unkillable_since, r.exit_code, r.signal,
       j.created_at, j.run_at, j.started_at, j.finished_at,
       coalesce(j.finished_at, leasehold.clock()) - j.started_at as duration
  from leasehold.jobs j
  left join leasehold.agents a
    on a.name = j.agent
  left join lateral (select l.*
                       from leasehold.runs l
                      where l.job_id = j.id
                      order by l.attempt desc
                      limit 1) r on true;
