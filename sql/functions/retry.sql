-- Give a job that ended without success one more attempt, under its own id.
create or replace function leasehold.retry(job bigint) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  wanted record;
  next_status text := 'queued';
begin
  select j.id, j.tenant, j.queue, j.agent, j.repository, j.lane, j.status, j.concurrency_key, j.conflict_policy, j.session_key,
         a.status as agent_status into wanted
    from jobs j
    left join agents a
      on a.name = j.agent
   where j.id = retry.job
     for update of j;
  if not found or not may_act_for(wanted.tenant) then
    perform refuse_unknown_job(retry.job);
  elsif wanted.status not in ('failed', 'blocked', 'timed_out', 'cancelled') then
    raise exception 'job % is %, it cannot be retried', wanted.id, wanted.status
      using errcode = 'LH022',
            hint = case wanted.status
              when 'succeeded' then 'It has succeeded; insert a new job to do it again.'
              else 'It has not ended yet; SELECT leasehold.cancel(...) ends it.'
            end;
  elsif wanted.agent_status is null then
    perform refuse_unknown_agent(wanted.agent);
  elsif wanted.agent_status in ('pending_approval', 'retired') then
    perform refuse_agent(wanted.agent, wanted.agent_status);
  end if;
  if wanted.conflict_policy <> 'allow' then
    wanted.concurrency_key := coalesce(wanted.concurrency_key, key_of_retried(wanted.tenant, wanted.agent, wanted.id, wanted.session_key));
    perform refuse_gone_on_with(wanted.tenant, wanted.agent, wanted.id, wanted.session_key, wanted.concurrency_key);
  end if;
  if wanted.concurrency_key is not null and wanted.conflict_policy <> 'allow'
     and not key_is_free(wanted.tenant, wanted.concurrency_key) then
    next_status := 'deferred';
  end if;

  perform set_config('leasehold.actor', 'retry', true);
  update jobs j
     set status = next_status,
         concurrency_key = wanted.concurrency_key,
         max_attempts = least(greatest(j.max_attempts, j.attempts + 1), 1000),
         losses = 0,
         run_at = clock(),
         due = true,
         waits_until = clock() + (select a.queue_timeout from agents a where a.name = j.agent),
         reason = null,
         message = null,
         result = null,
         cancel_requested_at = null,
         cancel_requested_by = null,
         cancel_requested_reason = null,
         finished_at = null,
         updated_at = clock()
   where j.id = wanted.id;
  perform set_config('leasehold.actor', '', true);
  perform note(wanted.id, wanted.tenant, null, 'retried', null, jsonb_build_object('by', session_user, 'was', wanted.status));
  if next_status = 'queued' then
    perform decide_wakeups(wanted.id);
  end if;
  insert into arrivals (lane, queue, tenant, agent, repository, key)
  values (wanted.lane, wanted.queue, wanted.tenant, wanted.agent, wanted.repository,
          case next_status when 'deferred' then wanted.concurrency_key end);
  return next_status;
end $$;
