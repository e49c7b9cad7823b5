-- Where a new job goes, by its conflict policy: the one way in for enqueue() and wake(). A plain INSERT cannot answer with another
-- job, so the trigger on jobs refuses there what is resolved here. Everything is checked by that trigger first.

-- 'accepted', 'deferred', 'coalesced', 'existing', or 'rejected' (only quietly). job_id is null if the idempotency key has a job.
create or replace function leasehold.place(wanted leasehold.jobs, wakeup bigint, quietly boolean, out job_id bigint, out disposition text)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  policy text := coalesce(nullif(lower(btrim(wanted.conflict_policy)), ''), 'defer');
begin
  if wanted.concurrency_key is null or policy in ('defer', 'allow') or (policy = 'reject' and not quietly) then
    select p.job_id, p.disposition into place.job_id, place.disposition from put_job(wanted) p;
    return;
  end if;
  begin
    select p.job_id, p.disposition into place.job_id, place.disposition from put_job(wanted) p;
    return;
  exception when sqlstate 'LH060' or sqlstate 'LH061' then
    null;                                                        -- it is in order, and its key is taken
  end;
  if policy = 'coalesce' then
    job_id := coalesce(join_waiting(wanted, wakeup), join_running(wanted, wakeup));
    disposition := 'coalesced';
    if job_id is null then
      perform set_config('leasehold.behind', 'yes', true);
      select p.job_id, p.disposition into place.job_id, place.disposition from put_job(wanted) p;
      perform set_config('leasehold.behind', '', true);
    end if;
    return;
  end if;
  job_id := holder_of(wanted.tenant, wanted.concurrency_key);
  disposition := case policy when 'reject' then 'rejected' else 'existing' end;
  if job_id is null and policy = 'return_existing' then
    raise exception 'the key "%" is being taken or given up by another transaction', wanted.concurrency_key
      using errcode = '40001', hint = 'Repeat the transaction.';
  end if;
end $$;

create or replace function leasehold.put_job(wanted leasehold.jobs, out job_id bigint, out disposition text)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  insert into jobs as j (tenant, project, queue, agent, kind, title, prompt, payload, priority, run_at,
                         concurrency_key, idempotency_key, max_attempts, labels,
                         conflict_policy, context, repository, session_key, thread, budget_usd, session, new_session,
                         branch, base_branch, use_repository, env_file_path, materialize_env_file)
  values (wanted.tenant, wanted.project, wanted.queue, wanted.agent, wanted.kind, wanted.title, wanted.prompt, wanted.payload,
          wanted.priority, wanted.run_at, wanted.concurrency_key, wanted.idempotency_key, wanted.max_attempts, wanted.labels,
          wanted.conflict_policy, wanted.context, wanted.repository, wanted.session_key, wanted.thread, wanted.budget_usd,
          wanted.session, wanted.new_session, wanted.branch, wanted.base_branch, coalesce(wanted.use_repository, true),
          wanted.env_file_path, wanted.materialize_env_file)
      on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
  returning j.id, case j.status when 'deferred' then 'deferred' else 'accepted' end into job_id, disposition;
end $$;
