-- Insert a job, or find the one that the same request with the same idempotency key has made before.
create or replace function leasehold.enqueue(
  agent text, prompt text, tenant text default null, project text default null, queue text default null, kind text default null,
  title text default null, payload jsonb default null, priority int default null, run_at timestamptz default null,
  concurrency_key text default null, idempotency_key text default null, max_attempts int default null, labels jsonb default null,
  conflict_policy text default null, context jsonb default null, repository text default null, session_key text default null,
  thread text default null, budget_usd numeric default null)
returns table (job_id bigint, disposition text)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  owner text := coalesce(nullif(btrim(enqueue.tenant), ''), my_default_tenant());
  born record;
  known record;
begin
  for turn in 1..3 loop
    insert into jobs as j (tenant, project, queue, agent, kind, title, prompt, payload, priority, run_at,
                           concurrency_key, idempotency_key, max_attempts, labels,
                           conflict_policy, context, repository, session_key, thread, budget_usd)
    values (owner, enqueue.project, enqueue.queue, enqueue.agent, enqueue.kind, enqueue.title, enqueue.prompt, enqueue.payload,
            enqueue.priority, enqueue.run_at, enqueue.concurrency_key, enqueue.idempotency_key, enqueue.max_attempts, enqueue.labels,
            enqueue.conflict_policy, enqueue.context, enqueue.repository, enqueue.session_key, enqueue.thread, enqueue.budget_usd)
        on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning j.id, j.status into born;
    if found then
      return query select born.id, case born.status when 'deferred' then 'deferred' else 'accepted' end;
      return;
    end if;
    select j.id, j.request_hash as hash into known         -- a statement of its own: it sees the winner
      from jobs j
     where j.tenant = owner
       and j.idempotency_key = enqueue.idempotency_key;
    if found and known.hash = request_hash(
        enqueue.agent, enqueue.project, enqueue.queue, enqueue.kind, enqueue.title, enqueue.prompt, enqueue.payload, enqueue.priority,
        enqueue.run_at, enqueue.concurrency_key, enqueue.max_attempts, null, enqueue.labels,
        enqueue.conflict_policy, enqueue.context, enqueue.repository, enqueue.session_key, enqueue.thread, enqueue.budget_usd) then
      return query select known.id, 'existing'::text;
      return;
    elsif found then
      raise exception 'idempotency key "%" was used for another request (job %)', enqueue.idempotency_key, known.id
        using errcode = 'LH031', detail = format('job_id=%s', known.id),
              hint = 'Use a new key, or repeat exactly the same request.';
    end if;
    exit when current_setting('transaction_isolation') <> 'read committed';      -- our snapshot is older than the winner
  end loop;
  raise exception 'idempotency key "%" has just been used by another transaction', enqueue.idempotency_key
    using errcode = '40001', hint = 'Repeat the transaction.';
end $$;
