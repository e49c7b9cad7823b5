-- Wakeups: asking an agent to look at something again. Every ask leaves a row that says who asked, why, and what became of it;
-- only what is refused with an error leaves nothing.

create or replace function leasehold.wake(
  agent text, key text default null, reason text default null, context jsonb default '{}', prompt text default null,
  source text default 'on_demand', trigger text default null, actor_type text default null, actor text default null,
  payload jsonb default '{}', tenant text default null, queue text default null, priority int default null, thread text default null,
  idempotency_key text default null, conflict_policy text default 'coalesce', project text default null, kind text default null,
  title text default null, run_at timestamptz default null, labels jsonb default null, max_attempts int default null,
  repository text default null, session_key text default null, budget_usd numeric default null)
returns leasehold.wake_answer
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  ask wakeups;
  wanted jobs;
  noted record;
begin
  ask.tenant := tenant_of(wake.tenant);
  ask.agent := lower(btrim(wake.agent));
  ask.source := coalesce(nullif(lower(btrim(wake.source)), ''), 'on_demand');
  ask.trigger := coalesce(nullif(lower(btrim(wake.trigger)), ''), case ask.source when 'on_demand' then 'manual' end);
  ask.actor_type := nullif(lower(btrim(wake.actor_type)), '');
  ask.actor := coalesce(nullif(btrim(wake.actor), ''), session_user);
  ask.reason := nullif(btrim(wake.reason), '');
  ask.context := coalesce(wake.context, '{}');
  ask.payload := coalesce(wake.payload, '{}');
  ask.idempotency_key := wake.idempotency_key;
  perform check_ask(ask);
  ask.key := coalesce(nullif(btrim(wake.key), ''), task_key(ask.context, ask.payload), 'agent:' || ask.agent);
  ask.context := enrich_context(ask);

  wanted.tenant := ask.tenant;
  wanted.agent := ask.agent;
  wanted.concurrency_key := ask.key;
  wanted.context := ask.context;
  wanted.payload := ask.payload;
  wanted.prompt := coalesce(nullif(btrim(wake.prompt, e' \t\r\n'), ''), bare_prompt());
  wanted.queue := wake.queue;
  wanted.priority := wake.priority;
  wanted.thread := wake.thread;
  wanted.conflict_policy := coalesce(nullif(lower(btrim(wake.conflict_policy)), ''), 'coalesce');
  wanted.project := wake.project;
  wanted.kind := wake.kind;
  wanted.title := wake.title;
  wanted.run_at := wake.run_at;
  wanted.labels := wake.labels;
  wanted.max_attempts := wake.max_attempts;
  wanted.repository := wake.repository;
  wanted.session_key := wake.session_key;
  wanted.budget_usd := wake.budget_usd;
  if ask.idempotency_key is not null then
    ask.request_hash := sha256(hash_of(wanted) || convert_to(jsonb_build_array(ask.reason, ask.source, ask.trigger, ask.actor_type,
                                                                               wake.actor)::text, 'UTF8'));
  end if;
  select r.* into noted from record_ask(ask) r;
  ask := noted.ask;
  if not noted.known then
    ask := answer_ask(ask, wanted);
  end if;
  return row(ask.id, ask.disposition, ask.job_id, ask.why)::wake_answer;
end $$;

-- What becomes of an ask that has its row.
create or replace function leasehold.answer_ask(ask leasehold.wakeups, wanted leasehold.jobs) returns leasehold.wakeups
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  policy record;
  placed record;
  switch text := case ask.source when 'schedule' then 'wake_on_schedule' else 'wake_on_demand' end;
begin
  select a.status, case ask.source when 'schedule' then a.wake_on_schedule else a.wake_on_demand end as wanted into policy
    from agents a
   where a.name = ask.agent;
  if policy.status in ('pending_approval', 'retired') then
    perform refuse_agent(ask.agent, policy.status);
  elsif not policy.wanted then
    return decide_ask(ask.id, 'skipped', format('%s is off', switch), null);
  end if;
  select p.job_id, p.disposition into placed from place(wanted, ask.id, true) p;
  return decide_ask(ask.id, placed.disposition, case placed.disposition
    when 'coalesced' then case when (select w.turn_id from wakeups w where w.id = ask.id) is null
                            then 'it joined a job of its key that had not started' else 'the agent at work on its key is told' end
    when 'deferred' then 'its key is taken'
    when 'existing' then 'its key is taken'
    when 'rejected' then 'its key is taken' end, placed.job_id);
end $$;

-- The prompt of a wake() that brings none.
create or replace function leasehold.bare_prompt() returns text
language sql immutable
as $$
  select 'You were woken. LEASEHOLD_CONTEXT says why.'
$$;

-- A word from a JSON object. Null: it is not there, or blank, or no word.
create or replace function leasehold.said(object jsonb, key text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when jsonb_typeof(object -> key) in ('string', 'number') then nullif(btrim(object ->> key, e' \t\r\n'), '') end;
end $$;

-- What the ask is about, when it brings no key: by default whatever its agent has to do.
create or replace function leasehold.task_key(context jsonb, payload jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce(said(context, 'taskKey'), said(context, 'taskId'), said(context, 'issueId'),
                  said(payload, 'taskKey'), said(payload, 'taskId'), said(payload, 'issueId'));
end $$;

-- What the asker has not said himself, and what we know: only blank keys are filled.
create or replace function leasehold.enrich_context(ask leasehold.wakeups) returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known jsonb := jsonb_build_object(
    'wakeReason', ask.reason,
    'issueId', said(ask.payload, 'issueId'),
    'taskId', coalesce(said(ask.payload, 'taskId'), said(ask.payload, 'issueId')),
    'taskKey', task_key(ask.context, ask.payload),
    'commentId', said(ask.payload, 'commentId'),
    'wakeCommentId', coalesce(said(ask.context, 'wakeCommentId'), said(ask.context, 'commentId'), said(ask.payload, 'commentId')),
    'wakeSource', ask.source,
    'wakeTriggerDetail', ask.trigger);
begin
  return ask.context || (
    select coalesce(jsonb_object_agg(k.key, k.value), '{}')
      from jsonb_each(jsonb_strip_nulls(known)) k
     where coalesce(jsonb_typeof(ask.context -> k.key), 'null') = 'null'
        or btrim(ask.context ->> k.key, e' \t\r\n') = '');
end $$;

create or replace function leasehold.check_ask(ask leasehold.wakeups) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  bad := case
    when ask.source not in ('schedule', 'assignment', 'on_demand', 'automation')
      then format('source "%s": it is schedule, assignment, on_demand or automation', ask.source)
    when ask.trigger not in ('manual', 'ping', 'callback', 'system')
      then format('trigger "%s": it is manual, ping, callback or system', ask.trigger)
    when ask.actor_type not in ('user', 'agent', 'system') then format('actor_type "%s": it is user, agent or system', ask.actor_type)
    when greatest(octet_length(ask.reason), octet_length(ask.actor)) > 1000 then 'its reason or actor is longer than 1000 bytes'
    when btrim(ask.idempotency_key) = '' or octet_length(ask.idempotency_key) > 500 then 'its idempotency_key is blank or longer than 500 bytes'
    when jsonb_typeof(ask.context) <> 'object' then format('its context is a JSON %s, not an object', jsonb_typeof(ask.context))
    when jsonb_typeof(ask.payload) <> 'object' then format('its payload is a JSON %s, not an object', jsonb_typeof(ask.payload))
    when greatest(pg_column_size(ask.context), pg_column_size(ask.payload)) > 1000000
      then 'its context or payload is larger than 1000000 bytes'
  end;
  if bad is not null then
    raise exception 'a wake cannot have %', bad
      using errcode = 'LH063', hint = 'See "Keys and wakeups" in sql/README.md for what a wake may say.';
  elsif ask.agent is null or not exists (select from agents a where a.name = ask.agent) then
    perform refuse_unknown_agent(ask.agent);
  end if;
end $$;

-- The row of an ask, or the one that the same ask with the same idempotency key has left before.
create or replace function leasehold.record_ask(inout ask leasehold.wakeups, out known boolean)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  before wakeups;
begin
  for turn in 1..3 loop
    insert into wakeups as w (tenant, agent, key, source, trigger, actor_type, actor, reason, context, payload, idempotency_key, request_hash,
                              disposition, at, decided_at)
    values (ask.tenant, ask.agent, ask.key, ask.source, ask.trigger, ask.actor_type, ask.actor, ask.reason, ask.context, ask.payload,
            ask.idempotency_key, ask.request_hash, 'accepted', clock(), clock())
        on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning w.id into ask.id;
    known := not found;
    if not known then
      return;
    end if;
    select w.* into before                                       -- a statement of its own: it sees the winner
      from wakeups w
     where w.tenant = ask.tenant
       and w.idempotency_key = ask.idempotency_key;
    if found and before.request_hash = ask.request_hash then
      ask := before;
      return;
    elsif found then
      perform refuse_other_request(ask.idempotency_key, before.job_id);
    end if;
    exit when current_setting('transaction_isolation') <> 'read committed';      -- our snapshot is older than the winner
  end loop;
  perform refuse_unseen_request(ask.idempotency_key);
end $$;

create or replace function leasehold.decide_ask(wakeup bigint, disposition text, why text, job bigint) returns leasehold.wakeups
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  decided wakeups;
begin
  update wakeups w
     set disposition = decide_ask.disposition,
         why = decide_ask.why,
         job_id = decide_ask.job,
         decided_at = case when decide_ask.disposition <> 'deferred' then clock() end
   where w.id = decide_ask.wakeup
  returning w.* into decided;
  return decided;
end $$;

-- A job that waited behind its key is live: so are the asks it stands for.
create or replace function leasehold.decide_wakeups(job bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update wakeups w
     set disposition = 'promoted',
         why = 'its key became free',
         decided_at = clock()
   where w.job_id = decide_wakeups.job
     and w.disposition = 'deferred';
end $$;

-- The switch that says no to all that a deferred job was woken for. Null: none does, or somebody wants it who did not wake:
-- an ask of enqueue() has no trigger.
create or replace function leasehold.switched_off(job leasehold.jobs) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select case when bool_and(asked.off) then min(asked.switch) end
            from (select case w.source when 'schedule' then 'wake_on_schedule' else 'wake_on_demand' end as switch,
                         case w.source when 'schedule' then not a.wake_on_schedule
                                       else not a.wake_on_demand and (w.source <> 'on_demand' or w.trigger is not null) end as off
                    from wakeups w
                    join agents a on a.name = (switched_off.job).agent
                   where w.job_id = (switched_off.job).id
                     and w.disposition in ('deferred', 'coalesced', 'promoted', 'accepted')) asked);
end $$;

create or replace function leasehold.skip_wakeups(job bigint, switch text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update wakeups w
     set disposition = 'skipped',
         why = format('%s is off', skip_wakeups.switch),
         decided_at = clock()
   where w.job_id = skip_wakeups.job
     and w.disposition in ('deferred', 'coalesced');
end $$;

-- A job that waited behind its key has ended there: nobody waits for it any more.
create or replace function leasehold.reject_wakeups(job bigint, status text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update wakeups w
     set disposition = 'rejected',
         why = format('its job %s before its key was free', case reject_wakeups.status when 'cancelled' then 'was cancelled'
                                                                                        when 'timed_out' then 'timed out'
                                                                                        else reject_wakeups.status end),
         decided_at = clock()
   where w.job_id = reject_wakeups.job
     and w.disposition = 'deferred';
end $$;
