-- How runs end and what becomes of their jobs. finish_run(), reap() and adopt() all come through end_run(); the retry policy is
-- in policy.sql and the table `reasons`.

-- A worker reports what became of a run, after its process tree is gone. The first verdict stands; the same again is harmless.
-- 'settled': taken. 'repeated': it was known. 'late': the run had been given up as lost; the job was settled with it if it still could.
-- Fenced by run, token and worker, not by the time of the lease: expired but not reaped still counts.
create or replace function leasehold.finish_run(
  worker bigint, token uuid, run bigint, run_token uuid, outcome text, reason text default null, message text default null,
  exit_code int default null, signal int default null, result jsonb default null, resources jsonb default null, output jsonb default null)
returns table (disposition text, job_status text, retry_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  current_ runs;
  why text := coalesce(nullif(finish_run.reason, ''), case finish_run.outcome when 'succeeded' then 'ok' end);
  found_as text;
begin
  perform know_worker(finish_run.worker, finish_run.token);
  perform check_reason(finish_run.outcome, why);
  current_ := lock_run(finish_run.run);
  if current_.token is distinct from finish_run.run_token
     or (current_.ended_at is null and current_.worker_id <> finish_run.worker) then
    perform refuse_run(finish_run.run, finish_run.run_token, finish_run.worker);
  elsif current_.ended_at is null then
    perform end_run('finish', current_, finish_run.outcome, why, finish_run.message, finish_run.exit_code, finish_run.signal,
                    nullif(finish_run.result, 'null'), finish_run.resources, finish_run.output);
    found_as := 'settled';
  elsif current_.outcome = finish_run.outcome and current_.reason = why then
    found_as := 'repeated';
  elsif current_.outcome = 'lost' then
    perform settle_late(current_, finish_run.outcome, why, finish_run.message, finish_run.exit_code, finish_run.signal,
                        nullif(finish_run.result, 'null'), finish_run.resources, finish_run.output);
    found_as := 'late';
  else
    perform refuse_run(finish_run.run, finish_run.run_token);
  end if;
  return query
  select found_as, j.status, case j.status when 'queued' then j.run_at end
    from jobs j
   where j.id = current_.job_id;
end $$;

create or replace function leasehold.check_reason(outcome text, reason text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if not exists (select from reasons r where r.outcome = check_reason.outcome and r.reason = check_reason.reason) then
    raise exception 'a run cannot end as % with reason %',
                    coalesce('"' || outcome || '"', 'NULL'), coalesce('"' || reason || '"', 'NULL')
      using errcode = 'LH014', hint = 'SELECT outcome, reason FROM leasehold.reasons lists what can be said.';
  end if;
end $$;

-- End a live run whose job, head and row the caller has locked.
create or replace function leasehold.end_run(
  actor text, run leasehold.runs, outcome text, reason text, message text default null, exit_code int default null, signal int default null,
  result jsonb default null, resources jsonb default null, output jsonb default null)
returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job jobs;
  now_is text;
begin
  perform set_config('leasehold.actor', actor, true);
  update runs r
     set status = 'ended',
         outcome = end_run.outcome,
         reason = end_run.reason,
         message = end_run.message,
         exit_code = end_run.exit_code,
         signal = end_run.signal,
         result = end_run.result,
         resources = end_run.resources,
         output = end_run.output,
         ended_at = clock()
   where r.id = (run).id;
  perform set_config('leasehold.actor', '', true);
  perform end_session(run, outcome, reason, message);
  update heads h                                          -- the fence falls: nothing more is taken from this run
     set run_id = null,
         run_token = null
   where h.job_id = (run).job_id;
  perform close_messages((run).id, outcome);
  insert into arrivals (tenant, queue, agent, repository)      -- a note of room, whether or not anything is limited: the claim may know better
  values ((run).tenant, (run).queue, (run).agent, (run).repository);
  if exists (select from interactions i where i.run_id = (run).id) then
    perform close_interactions(run);
  end if;
  select j.* into strict job from jobs j where j.id = (run).job_id;
  now_is := settle_job(actor, job, run, outcome, reason, message, result,
                       jsonb_build_object('exit_code', exit_code, 'signal', signal));
  if now_is = 'queued' and exists (select from turns t where t.job_id = job.id and t.state in ('pending', 'acknowledged')) then
    perform put_back_turns(job, (run).id);
  end if;
  return now_is;
end $$;

-- Bring a job to where its ended run leads. Returns the job's new status.
create or replace function leasehold.settle_job(
  actor text, job leasehold.jobs, run leasehold.runs, outcome text, reason text, message text, result jsonb, facts jsonb)
returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  next_ record;
begin
  select f.* into strict next_ from what_follows(job, (run).id, outcome, reason) f;
  perform set_config('leasehold.actor', actor, true);
  update jobs j
     set status = coalesce(next_.ends_as, 'queued'),
         run_at = coalesce(next_.again_at, j.run_at),
         due = coalesce(next_.again_at <= clock(), true),
         waits_until = case
           when next_.ends_as is null and next_.why in ('workspace_busy', 'credential_busy') then j.waits_until      -- it has done nothing but wait
           when next_.ends_as is null                                 -- a long run has not waited: from now, not from its old run_at
           then greatest(next_.again_at, clock()) + (select a.queue_timeout from agents a where a.name = j.agent) end,
         attempts = next_.attempts,
         interruptions = next_.interruptions,
         losses = next_.losses,
         reason = next_.why,
         message = settle_job.message,
         result = case when next_.ends_as is not null then settle_job.result end,
         finished_at = case when next_.ends_as is not null then clock() end,
         updated_at = clock()
   where j.id = job.id;
  perform set_config('leasehold.actor', '', true);

  if next_.ends_as is not null or job.status <> 'queued' then         -- a late failure may leave it queued: no transition, no event
    perform note(job.id, job.tenant, (run).id,
                 coalesce(next_.ends_as, case when outcome in ('lost', 'interrupted') then outcome else 'retry_scheduled' end),
                 message,
                 jsonb_strip_nulls(facts || jsonb_build_object(
                   'attempt', (run).attempt, 'outcome', outcome, 'reason', next_.why, 'worker', (run).worker_id,
                   'retry_at', case when next_.again_at > clock() then next_.again_at end)),
                 case when next_.ends_as = 'succeeded' then 'info'
                      when next_.ends_as in ('failed', 'timed_out', 'blocked') then 'error'
                      else 'warning' end);
  end if;
  if next_.ends_as is null then
    insert into arrivals (lane, queue, tenant, agent, repository)      -- rings at commit
    values (job.lane, job.queue, job.tenant, job.agent, job.repository);
    return 'queued';
  end if;
  if job.concurrency_key is not null and job.conflict_policy <> 'allow'
     and live_of(job.tenant, job.concurrency_key) is null then        -- else its follow-up has the key already
    perform promote_next(job.tenant, job.concurrency_key);
  end if;
  if is_limited(job) then                                             -- room was made, maybe for another worker
    perform ring();
  end if;
  return next_.ends_as;
end $$;

-- Does the end of this job make room for jobs of others? Without a limit the free slot is the worker's own business.
create or replace function leasehold.is_limited(job leasehold.jobs) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return exists (select from agents a where a.name = job.agent and a.max_running is not null)
      or exists (select from tenants t where t.name = job.tenant and t.max_running is not null)
      or exists (select from queues q where q.name = job.queue and q.max_running is not null)
      or exists (select from repositories p where p.tenant = job.tenant and p.name = job.repository and p.max_running is not null)
      or exists (select from hosts h where h.max_running is not null)
      or exists (select from cluster c where c.max_running is not null);
end $$;
