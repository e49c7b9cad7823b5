-- The insert surface: a bare `insert into leasehold.jobs (agent, prompt)` is as good as any API.
--
-- In order: the tenant of the login is looked up once per statement; columns that only functions may write are refused in a
-- trigger's WHEN (compiled, free unless it fires); each row is normalised and checked, without side effects, because rows that
-- ON CONFLICT DO NOTHING drops pass here too; then one statement trigger writes heads, first events and arrivals of all new rows;
-- and the arrivals ring the bell at commit.

-- without a SET clause, so that it is inlined where it is called
create or replace function leasehold.lane_of(queue text, tenant text, agent text, repository text default null) returns bigint
language sql immutable
as $$
  select hashtextextended(queue || e'\x1f' || tenant || e'\x1f' || agent || coalesce(e'\x1f' || repository, ''), 0)
$$;

-- The whole request in one number. Leaving a value out is the same as giving its default; times are compared as instants.
-- What came in later releases goes to the end, and only if it is given: the request of yesterday still has its number.
create or replace function leasehold.request_hash(
  agent text, project text, queue text, kind text, title text, prompt text, payload jsonb, priority int, run_at timestamptz,
  concurrency_key text, max_attempts int, max_losses int, labels jsonb, conflict_policy text, context jsonb, repository text,
  session_key text, thread text, budget_usd numeric) returns bytea
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(jsonb_build_array(
    1,                                                         -- the version of this list
    lower(btrim(agent)),
    nullif(btrim(project), ''),
    coalesce(nullif(btrim(queue), ''), 'default'),
    coalesce(nullif(btrim(kind), ''), 'task'),
    nullif(btrim(title), ''),
    prompt,
    coalesce(payload, '{}'),
    coalesce(priority, 0),
    extract(epoch from run_at)::text,
    concurrency_key,
    coalesce(max_attempts, 1),
    coalesce(max_losses, 3),
    coalesce(labels, '{}'))::text
    || coalesce(nullif(jsonb_strip_nulls(jsonb_build_object(
      'conflict_policy', nullif(lower(btrim(conflict_policy)), 'defer'),
      'context', nullif(context, '{}'),
      'repository', nullif(btrim(repository), ''),
      'session_key', nullif(btrim(session_key), ''),
      'thread', nullif(btrim(thread), ''),
      'budget_usd', trim_scale(budget_usd))), '{}')::text, ''), 'UTF8'))
$$;

create or replace function leasehold.jobs_before_statement() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform set_config('leasehold.tenant', coalesce(                  -- my_default_tenant(), in line
    (select mine.tenant
       from tenant_logins mine
      where mine.login = session_user
      order by mine.is_default desc, mine.tenant
      limit 1),
    'default'), true),                                              -- a client that tampers with it meets the policy on jobs
          set_config('leasehold.refusing', (exists (select from budgets b where b.refuse))::text, true);
  return null;
end $$;

-- Fires only if there is something to refuse; the values here are what a row has that leaves these columns out.
create or replace function leasehold.jobs_refuse_protected() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  untouched jsonb := '{"status": "queued", "due": true, "lane": 0, "attempts": 0, "interruptions": 0, "losses": 0, "reason": null,
    "message": null, "result": null, "cancel_requested_at": null, "cancel_requested_by": null, "cancel_requested_reason": null,
    "request_hash": null, "created_at": null, "updated_at": null, "started_at": null, "finished_at": null,
    "waits_until": null, "coalesced": 0, "schedule_id": null, "rank": "-infinity"}';
begin
  raise exception 'a new job cannot set %: only functions write that', (
      select string_agg(column_.key, ', ' order by column_.key)
        from jsonb_each(to_jsonb(new)) column_
       where untouched ? column_.key
         and column_.value <> untouched -> column_.key)
    using errcode = 'LH002', hint = 'Leave it out. SELECT leasehold.cancel(...) and leasehold.retry(...) act on jobs that exist.';
end $$;

create or replace function leasehold.jobs_before_insert() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  now_ timestamptz := clock();
  asked record;
  of_thread text;
begin
  new.agent := lower(btrim(new.agent));
  new.tenant := coalesce(nullif(btrim(new.tenant), ''), current_setting('leasehold.tenant'));
  new.queue := coalesce(nullif(btrim(new.queue), ''), 'default');
  new.kind := coalesce(nullif(btrim(new.kind), ''), 'task');
  new.project := nullif(btrim(new.project), '');
  new.title := nullif(btrim(new.title), '');
  new.payload := coalesce(new.payload, '{}');
  new.labels := coalesce(new.labels, '{}');
  new.context := coalesce(new.context, '{}');
  new.conflict_policy := coalesce(nullif(lower(btrim(new.conflict_policy)), ''), 'defer');
  new.repository := nullif(btrim(new.repository), '');
  new.session_key := nullif(btrim(new.session_key), '');
  new.session := nullif(btrim(new.session), '');
  new.new_session := coalesce(new.new_session, false);
  new.thread := nullif(btrim(new.thread), '');
  new.priority := coalesce(new.priority, 0);
  new.max_attempts := coalesce(new.max_attempts, 1);
  new.max_losses := coalesce(new.max_losses, 3);
  if new.thread is not null and coalesce(btrim(new.prompt, e' \t\r\n'), '') = '' then
    of_thread := thread_prompt(new.tenant, new.thread);
  end if;

  if new.tenant <> current_setting('leasehold.tenant') and not may_act_for(new.tenant) then
    raise exception 'the login "%" may not act for tenant "%"', session_user, new.tenant
      using errcode = 'LH030', hint = 'Leave tenant out, or ask an administrator for a row in leasehold.tenant_logins.';
  elsif new.agent is null or new.agent = '' then
    raise exception 'a job needs an agent'
      using errcode = 'LH003', column = 'agent', hint = 'INSERT INTO leasehold.jobs (agent, prompt) VALUES (''name'', ''what to do'');';
  elsif of_thread is null and coalesce(btrim(new.prompt, e' \t\r\n'), '') = '' then
    raise exception 'a job needs a prompt'
      using errcode = 'LH003', column = 'prompt', hint = 'INSERT INTO leasehold.jobs (agent, prompt) VALUES (''name'', ''what to do'');';
  elsif 'object' <> any (array[jsonb_typeof(new.payload), jsonb_typeof(new.labels), jsonb_typeof(new.context)]) then
    perform refuse_not_object(new);
  elsif new.priority not between 0 and 1000 then
    raise exception 'priority % is outside 0..1000', new.priority
      using errcode = 'LH006', column = 'priority', hint = 'Higher runs first within a queue, tenant and agent; 0 is the default.';
  elsif new.max_attempts not between 1 and 1000 then
    raise exception 'max_attempts % is outside 1..1000', new.max_attempts
      using errcode = 'LH006', column = 'max_attempts', hint = '1, the default, means no second try.';
  elsif new.max_losses not between 1 and 1000 then
    raise exception 'max_losses % is outside 1..1000', new.max_losses
      using errcode = 'LH006', column = 'max_losses', hint = 'How often a job may lose its worker before it fails; 3 is the default.';
  elsif not isfinite(new.run_at) then
    raise exception 'run_at % is not a moment in time', new.run_at
      using errcode = 'LH007', column = 'run_at', hint = 'Leave it out for now, or give a time.';
  elsif btrim(new.concurrency_key) = '' or btrim(new.idempotency_key) = '' then
    raise exception '% is blank', case when btrim(new.concurrency_key) = '' then 'concurrency_key' else 'idempotency_key' end
      using errcode = 'LH007', hint = 'Leave it out (NULL) for none: jobs that share a blank key would block or swallow each other.';
  elsif new.conflict_policy not in ('defer', 'coalesce', 'reject', 'return_existing', 'allow') then
    raise exception 'there is no conflict_policy "%"', new.conflict_policy
      using errcode = 'LH007', column = 'conflict_policy', hint = 'Use defer (the default), coalesce, reject, return_existing or allow.';
  elsif new.budget_usd <= 0 or new.budget_usd >= 1e12 then                -- NaN is above all numbers
    raise exception 'budget_usd % is not an amount of money above 0', new.budget_usd
      using errcode = 'LH006', column = 'budget_usd', hint = 'Leave it out (NULL) for the budget_usd of its agent.';
  end if;
  if octet_length(new.prompt) > 1048576 or pg_column_size(new.payload) > 1048576 or pg_column_size(new.labels) > 16384
     or octet_length(new.title) > 1000 or octet_length(new.concurrency_key) > 500 or octet_length(new.idempotency_key) > 500
     or pg_column_size(new.context) > 1048576
     or greatest(octet_length(new.repository), octet_length(new.session_key), octet_length(new.thread)) > 500
     or greatest(octet_length(new.tenant), octet_length(new.project), octet_length(new.queue), octet_length(new.kind)) > 200 then
    perform refuse_too_long(new);
  end if;
  select a.queue_timeout, a.status into asked from agents a where a.name = new.agent;
  if not found then
    raise exception 'there is no agent "%"', new.agent
      using errcode = 'LH001', column = 'agent',
            hint = 'SELECT name FROM leasehold.agents lists them. An administrator adds one: '
                   'INSERT INTO leasehold.agents (name, adapter, command) VALUES (''name'', ''command'', ''{program,argument}'');';
  elsif asked.status in ('pending_approval', 'retired') then
    perform refuse_agent(new.agent, asked.status);
  end if;

  if new.idempotency_key is not null then
    new.request_hash := hash_of(new);
  end if;
  if new.session is not null then
    new.session_key := key_of_session(new);                            -- after the hash, which is of what was asked
  end if;
  new.prompt := coalesce(of_thread, new.prompt);                        -- after the hash, too
  new.run_at := coalesce(new.run_at, now_);
  new.due := new.run_at <= now_;
  new.waits_until := greatest(new.run_at, now_) + asked.queue_timeout;
  new.lane := lane_of(new.queue, new.tenant, new.agent, new.repository);
  new.rank := rank_of(new.run_at, new.priority, new.queue);
  new.created_at := now_;
  new.updated_at := now_;
  if new.session_key is not null and new.concurrency_key is null and new.conflict_policy <> 'allow' then
    perform refuse_own_conversation(new);
    new.concurrency_key := conversation_key(new.agent, new.session_key);
    new.conflict_policy := 'defer';                            -- it was said of a key of its own, and there is none
  end if;
  if new.concurrency_key is not null and new.conflict_policy <> 'allow' and not key_is_free(new.tenant, new.concurrency_key) then
    if new.conflict_policy <> 'defer' then
      perform refuse_taken(new);
    end if;
    new.status := 'deferred';
  end if;
  return new;
end $$;

-- Says which column it was.
create or replace function leasehold.refuse_not_object(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  odd record;
begin
  select one.name, jsonb_typeof(one.value) as type into odd
    from (values ('payload', job.payload), ('labels', job.labels), ('context', job.context)) one (name, value)
   where jsonb_typeof(one.value) <> 'object'
   limit 1;
  raise exception '% must be a JSON object, not a JSON %', odd.name, odd.type
    using errcode = 'LH005', hint = 'Leave it out for none; wrap anything else: {"value": ...}.';
end $$;

-- Says which column it was; the limits stand in the one condition above, too.
create or replace function leasehold.refuse_too_long(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  long record;
begin
  select one.name, one.size, one.allowed into long
    from (values
      ('prompt', octet_length(job.prompt), 1048576),
      ('payload', pg_column_size(job.payload), 1048576),
      ('labels', pg_column_size(job.labels), 16384),
      ('context', pg_column_size(job.context), 1048576),
      ('repository', octet_length(job.repository), 500),
      ('session_key', octet_length(job.session_key), 500),
      ('thread', octet_length(job.thread), 500),
      ('title', octet_length(job.title), 1000),
      ('concurrency_key', octet_length(job.concurrency_key), 500),
      ('idempotency_key', octet_length(job.idempotency_key), 500),
      ('tenant', octet_length(job.tenant), 200),
      ('project', octet_length(job.project), 200),
      ('queue', octet_length(job.queue), 200),
      ('kind', octet_length(job.kind), 200)) one (name, size, allowed)
   where one.size > one.allowed
   limit 1;
  if found then
    raise exception '% has % bytes, the limit is %', long.name, long.size, long.allowed
      using errcode = 'LH004', column = long.name,
            hint = case when long.name in ('prompt', 'payload', 'context')
              then 'Put long input into a file that the agent can read, and its path into the prompt.'
              else 'Shorten it; details belong into the prompt or the payload.' end;
  end if;
end $$;

create or replace function leasehold.jobs_after_insert() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  with headed as (
    insert into heads (job_id, seq)
    select id, 1
      from fresh
  ), told as (
    insert into events (job_id, seq, tenant, at, kind)
    select id, 1, tenant, created_at, status
      from fresh
  )
  insert into arrivals (lane, queue, tenant, agent, repository, key)
  select distinct lane, queue, tenant, agent, repository, case when status = 'deferred' then concurrency_key end
    from fresh;
  return null;
end $$;
