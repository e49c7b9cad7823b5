-- Insert a job, or find the one that the same request with the same idempotency key has made before, or the one that has its key.
create or replace function leasehold.enqueue(
  agent text, prompt text, tenant text default null, project text default null, queue text default null, kind text default null,
  title text default null, payload jsonb default null, priority int default null, run_at timestamptz default null,
  concurrency_key text default null, idempotency_key text default null, max_attempts int default null, labels jsonb default null,
  conflict_policy text default null, context jsonb default null, repository text default null, session_key text default null,
  thread text default null, budget_usd numeric default null, session text default null, new_session boolean default null)
returns table (job_id bigint, disposition text)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  wanted jobs;
begin
  wanted.tenant := tenant_of(enqueue.tenant);
  wanted.project := enqueue.project;
  wanted.queue := enqueue.queue;
  wanted.agent := lower(btrim(enqueue.agent));
  wanted.kind := enqueue.kind;
  wanted.title := enqueue.title;
  wanted.prompt := enqueue.prompt;
  wanted.payload := enqueue.payload;
  wanted.priority := enqueue.priority;
  wanted.run_at := enqueue.run_at;
  wanted.concurrency_key := enqueue.concurrency_key;
  wanted.idempotency_key := enqueue.idempotency_key;
  wanted.max_attempts := enqueue.max_attempts;
  wanted.labels := enqueue.labels;
  wanted.conflict_policy := lower(btrim(enqueue.conflict_policy));
  wanted.context := coalesce(enqueue.context, '{}');
  wanted.repository := enqueue.repository;
  wanted.session_key := enqueue.session_key;
  wanted.thread := enqueue.thread;
  wanted.budget_usd := enqueue.budget_usd;
  wanted.session := enqueue.session;
  wanted.new_session := enqueue.new_session;
  if wanted.idempotency_key is not null then
    wanted.request_hash := hash_of(wanted);
  end if;
  if wanted.concurrency_key is not null and wanted.conflict_policy in ('coalesce', 'return_existing') then
    return query select * from enqueue_joining(wanted);
  else
    return query select * from enqueue_plainly(wanted);
  end if;
end $$;

-- Which session it asks for counts only if it asks for one: the request of yesterday still has its number.
create or replace function leasehold.hash_of(job leasehold.jobs) returns bytea
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  plain bytea := request_hash(
    job.agent, job.project, job.queue, job.kind, job.title, job.prompt, job.payload, job.priority, job.run_at, job.concurrency_key,
    job.max_attempts, job.max_losses, job.labels, job.conflict_policy, job.context, job.repository, job.session_key, job.thread,
    job.budget_usd);
  more jsonb := jsonb_strip_nulls(jsonb_build_object('session', nullif(btrim(job.session), ''), 'new_session', nullif(job.new_session, false)));
begin
  return case more when '{}' then plain else sha256(plain || convert_to(more::text, 'UTF8')) end;
end $$;

create or replace function leasehold.enqueue_plainly(wanted leasehold.jobs, out job_id bigint, out disposition text)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if wanted.idempotency_key is not null
     and exists (select from wakeups w where w.tenant = wanted.tenant and w.idempotency_key = wanted.idempotency_key) then
    perform refuse_other_request(wanted.idempotency_key, null);         -- those requests have another policy, or are wakes
  end if;
  for turn in 1..3 loop
    select p.job_id, p.disposition into enqueue_plainly.job_id, enqueue_plainly.disposition from place(wanted, null, false) p;
    if job_id is null then
      job_id := same_request(wanted);
      disposition := 'existing';
    end if;
    if job_id is not null then
      return;
    end if;
    exit when current_setting('transaction_isolation') <> 'read committed';      -- our snapshot is older than the winner
  end loop;
  perform refuse_unseen_request(wanted.idempotency_key);
end $$;

-- Whoever may be answered with the job of others leaves a row, and that row is what the same request finds again.
create or replace function leasehold.enqueue_joining(wanted leasehold.jobs, out job_id bigint, out disposition text)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  ask wakeups;
  noted record;
begin
  ask.tenant := wanted.tenant;
  ask.agent := coalesce(wanted.agent, '');
  ask.key := wanted.concurrency_key;
  ask.source := 'on_demand';
  ask.actor := session_user;
  ask.context := case jsonb_typeof(wanted.context) when 'object' then wanted.context else '{}' end;      -- place() says what is wrong
  ask.payload := case jsonb_typeof(wanted.payload) when 'object' then wanted.payload else '{}' end;
  ask.idempotency_key := wanted.idempotency_key;
  ask.request_hash := wanted.request_hash;
  select r.* into noted from record_ask(ask) r;
  ask := noted.ask;
  if noted.known then
    job_id := ask.job_id;
    disposition := 'existing';
    return;
  end if;
  select p.job_id, p.disposition into enqueue_joining.job_id, enqueue_joining.disposition from place(wanted, ask.id, false) p;
  if job_id is null then                                                -- a plain INSERT made it, before we came
    job_id := same_request(wanted);
    disposition := 'existing';
    if job_id is null then
      perform refuse_unseen_request(wanted.idempotency_key);
    end if;
  end if;
  perform decide_ask(ask.id, disposition, null, job_id);
end $$;

-- The job of this very request. Null: none that we see.
create or replace function leasehold.same_request(wanted leasehold.jobs) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known record;
begin
  select j.id, j.request_hash as hash into known                        -- a statement of its own: it sees the winner
    from jobs j
   where j.tenant = wanted.tenant
     and j.idempotency_key = wanted.idempotency_key;
  if found and known.hash is distinct from wanted.request_hash then
    perform refuse_other_request(wanted.idempotency_key, known.id);
  end if;
  return known.id;
end $$;

create or replace function leasehold.refuse_other_request(idempotency_key text, job bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'idempotency key "%" was used for another request%', idempotency_key, coalesce(format(' (job %s)', job), '')
    using errcode = 'LH031', detail = coalesce(format('job_id=%s', job), ''),
          hint = 'Use a new key, or repeat exactly the same request.';
end $$;

create or replace function leasehold.refuse_unseen_request(idempotency_key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'idempotency key "%" has just been used by another transaction', idempotency_key
    using errcode = '40001', hint = 'Repeat the transaction.';
end $$;
