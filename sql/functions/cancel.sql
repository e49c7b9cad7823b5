-- Ask for a job to end. What has not started ends at once; what runs ends when its process tree is gone, not before.
create or replace function leasehold.cancel(job bigint, reason text default null) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  wanted record;
  live record;
begin
  select j.id, j.tenant, j.status, j.concurrency_key, j.conflict_policy, j.cancel_requested_at into wanted
    from jobs j
   where j.id = cancel.job
     for update;
  if not found or not may_act_for(wanted.tenant) then
    perform refuse_unknown_job(cancel.job);
  elsif wanted.status not in ('queued', 'deferred', 'running', 'waiting') then
    raise exception 'job % has already ended: %', wanted.id, wanted.status
      using errcode = 'LH021', hint = 'There is nothing left to cancel.';
  end if;

  perform set_config('leasehold.actor', 'cancel', true);
  update jobs j
     set cancel_requested_at = coalesce(j.cancel_requested_at, clock()),
         cancel_requested_by = coalesce(j.cancel_requested_by, session_user),
         cancel_requested_reason = coalesce(j.cancel_requested_reason, cancel.reason),
         status = case when wanted.status in ('queued', 'deferred') then 'cancelled' else j.status end,
         reason = case when wanted.status in ('queued', 'deferred') then 'cancelled' else j.reason end,
         message = case when wanted.status in ('queued', 'deferred') then cancel.reason else j.message end,
         finished_at = case when wanted.status in ('queued', 'deferred') then clock() end,
         updated_at = clock()
   where j.id = wanted.id;
  perform set_config('leasehold.actor', '', true);

  if wanted.status in ('queued', 'deferred') then
    perform note(wanted.id, wanted.tenant, null, 'cancelled', cancel.reason, jsonb_build_object('by', session_user));
    if wanted.status = 'deferred' then
      perform reject_wakeups(wanted.id, 'cancelled');
    elsif wanted.concurrency_key is not null and wanted.conflict_policy <> 'allow' then
      perform promote_next(wanted.tenant, wanted.concurrency_key);
    end if;
    return 'cancelled';
  end if;

  select r.id, r.worker_id into live
    from runs r
   where r.job_id = wanted.id
     and r.ended_at is null;
  if wanted.cancel_requested_at is null then
    perform note(wanted.id, wanted.tenant, live.id, 'cancel_requested', cancel.reason,
                 jsonb_strip_nulls(jsonb_build_object('by', session_user, 'worker', live.worker_id)));
  end if;
  perform pg_notify(format('leasehold_worker_%s', live.worker_id), '');
  return 'requested';
end $$;

-- One answer for "no such job" and "not yours", so that ids of others cannot be probed.
create or replace function leasehold.refuse_unknown_job(job bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'there is no job %', coalesce(job::text, 'NULL')
    using errcode = 'LH023', hint = 'SELECT id, status FROM leasehold.jobs lists those you may see.';
end $$;

-- Ask for the end of everything that an agent has to do, for the tenants of the caller. Answers how many jobs that were. What waits
-- ends before what it waits for, so that nothing of this agent is promoted on the way.
create or replace function leasehold.cancel_agent(agent text, reason text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  ours bigint[];
  live record;
begin
  if not exists (select from agents a where a.name = lower(btrim(cancel_agent.agent))) then
    perform refuse_unknown_agent(cancel_agent.agent);
  end if;
  select array_agg(locked.id) into ours
    from (select j.id                                                   -- ascending, as everywhere
            from jobs j
           where j.agent = lower(btrim(cancel_agent.agent))
             and j.status in ('queued', 'deferred', 'running', 'waiting')
             and may_act_for(j.tenant)
           order by j.id
             for update) locked;
  for live in
    select j.id
      from jobs j
     where j.id = any (ours)
     order by j.status <> 'deferred', j.id
  loop
    perform cancel(live.id, cancel_agent.reason);
  end loop;
  return coalesce(cardinality(ours), 0);
end $$;
