-- What a run used, as its agent says it, into rows that are counted once: a report is known by its place in the stdout, a counter that
-- only grows counts by what it has grown. Called by append_events() in the same transaction, for runs whose heads are locked.

-- One number of a report. Anything that is no sensible amount is left out, and `mistake` says so.
create or replace function leasehold.read_amount(data jsonb, key text, most numeric, whole boolean, out amount numeric, out mistake text)
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  said text := data ->> key;
begin
  if said is null then
    return;
  elsif jsonb_typeof(data -> key) not in ('number', 'string') or length(said) > 700
        or said !~ '^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$' then
    mistake := format('%s is not a number', key);
    return;
  end if;
  amount := said::numeric;
  mistake := case
    when amount < 0 then format('%s is negative', key)
    when amount > most then format('%s is more than %s', key, most)
    when whole and amount <> trunc(amount) then format('%s is not a whole number', key) end;
  amount := case when mistake is null then round(amount, 18) end;
end $$;

-- What a `usage` line says. `mistake` names what of it is not counted.
create or replace function leasehold.read_usage(
  data jsonb, out input numeric, out output numeric, out cached numeric, out cost numeric,
  out provider text, out model text, out counter text, out session text, out mistake text)
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  odd text[] := '{}';
  wrong text;
  tokens numeric := case when data ->> 'counter' is null then 1e12 else 1e15 end;
begin
  if jsonb_typeof(data) is distinct from 'object' then
    mistake := 'it is not an object';
    return;
  end if;
  select a.amount, a.mistake into input, wrong from read_amount(data, 'input_tokens', tokens, true) a;
  odd := odd || wrong;
  select a.amount, a.mistake into output, wrong from read_amount(data, 'output_tokens', tokens, true) a;
  odd := odd || wrong;
  select a.amount, a.mistake into cached, wrong from read_amount(data, 'cached_tokens', tokens, true) a;
  odd := odd || wrong;
  select a.amount, a.mistake into cost, wrong from read_amount(data, 'cost_usd', 1e6, false) a;
  odd := odd || wrong;
  counter := data ->> 'counter';
  if counter not in ('run', 'session') then
    odd := odd || format('there is no counter "%s"', left(counter, 40));
    input := null; output := null; cached := null; cost := null;      -- whether it adds or repeats, nobody knows
  end if;
  provider := coalesce(nullif(btrim(left(data ->> 'provider', 200)), ''), 'unknown');
  model := coalesce(nullif(btrim(left(data ->> 'model', 200)), ''), 'unknown');
  session := coalesce(left(data ->> 'session', 200), '');
  mistake := nullif(array_to_string(odd, ', '), '');
end $$;

-- What is wrong with something an agent said, as the event that keeps it says; null: nothing.
create or replace function leasehold.said_wrong(kind text, data jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  wrong text;
begin
  if kind = 'usage' then
    select u.mistake into wrong from read_usage(data) u;
  elsif kind = 'session' then
    wrong := session_mistake(data);
  else
    return 'nobody is asked: ' || asked_mistake(kind, data);
  end if;
  return 'not counted: ' || wrong;
end $$;

-- Reports of runs whose heads the caller has locked: ours are those that the token speaks for. Sessions first, then counters, then budgets,
-- each in the order of their keys, so that no two batches wait for each other.
create or replace function leasehold.record_said(runs bigint[], tokens uuid[], marks bigint[], kinds text[], datas jsonb[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  said record;
begin
  for said in
    select r as run, e.data
      from unnest(record_said.runs, tokens, kinds, datas) with ordinality e (id, token, kind, data, nth)
      join leasehold.runs r
        on r.id = e.id
       and r.token = e.token
     where e.kind = 'session'
       and is_heard(r)
       and session_mistake(e.data) is null
     order by r.tenant, r.agent, session_key(r), e.nth
  loop
    perform set_session(said.run, said.data ->> 'id');
  end loop;
  perform record_usage(record_said.runs, tokens, marks, kinds, datas);
end $$;

-- Live and fenced by its head, which is locked.
create or replace function leasehold.is_heard(run leasehold.runs) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return exists (select from heads h where h.job_id = (run).job_id and h.run_id = (run).id and h.run_token = (run).token);
end $$;

create or replace function leasehold.record_usage(
  runs bigint[], tokens uuid[], marks bigint[], kinds text[], datas jsonb[], late boolean default false) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  said record;
  added usage;
  all_added usage[] := '{}';
begin
  for said in
    select r as run, e.mark, u as used
      from unnest(record_usage.runs, tokens, marks, kinds, datas) with ordinality e (id, token, mark, kind, data, nth)
      join leasehold.runs r
        on r.id = e.id
       and r.token = e.token
     cross join lateral read_usage(e.data) u
     where e.kind = 'usage'
       and coalesce(u.input, u.output, u.cached, u.cost) is not null
       and (late or is_heard(r))
     order by u.counter nulls first, case u.counter when 'run' then r.id else r.conversation end, u.session, u.provider, u.model, e.nth
  loop
    added := count_usage(said.run, said.mark, said.used);
    continue when added.run_id is null;
    all_added := all_added || added;
  end loop;
  if cardinality(all_added) > 0 then
    perform add_to_run(a.run_id, sum(a.input_tokens), sum(a.output_tokens), sum(a.cached_tokens), sum(a.cost_usd),
                       count(*) filter (where a.cost_usd is null))
       from unnest(all_added) a
      group by a.run_id;
    perform charge_budgets(all_added);
  end if;
end $$;

-- One report. Answers the row that it became; an empty one if it added nothing or was counted before.
create or replace function leasehold.count_usage(run leasehold.runs, mark bigint, used record) returns leasehold.usage
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  added usage;
  known usage_counters;
begin
  added.input_tokens := coalesce(used.input, 0);
  added.output_tokens := coalesce(used.output, 0);
  added.cached_tokens := coalesce(used.cached, 0);
  added.cost_usd := used.cost;
  added.seq := coalesce(mark, (select least(min(u.seq), 0) - 1 from usage u where u.run_id = (run).id));
  if exists (select from usage u where u.run_id = (run).id and u.seq = added.seq) then
    return null;
  end if;
  if used.counter is not null then
    known := hold_counter(run, used.counter, used.session, used.provider, used.model);
    update usage_counters c
       set input_tokens = greatest(c.input_tokens, added.input_tokens),
           output_tokens = greatest(c.output_tokens, added.output_tokens),
           cached_tokens = greatest(c.cached_tokens, added.cached_tokens),
           cost_usd = greatest(c.cost_usd, used.cost),
           updated_at = clock()
     where (c.scope, c.run_id, c.name, c.provider, c.model) = (known.scope, known.run_id, known.name, known.provider, known.model);
    added.input_tokens := greatest(added.input_tokens - known.input_tokens, 0);
    added.output_tokens := greatest(added.output_tokens - known.output_tokens, 0);
    added.cached_tokens := greatest(added.cached_tokens - known.cached_tokens, 0);
    added.cost_usd := case when used.cost is not null then greatest(used.cost - known.cost_usd, 0) end;      -- greatest() takes null for nothing
  end if;
  if added.input_tokens + added.output_tokens + added.cached_tokens + coalesce(added.cost_usd, 0) = 0 then
    return null;
  end if;
  added.run_id := (run).id;
  added.job_id := (run).job_id;
  added.tenant := (run).tenant;
  added.agent := (run).agent;
  added.account := account_of((run).agent);
  added.session := session_key(run);
  added.provider := used.provider;
  added.model := used.model;
  added.at := clock();
  insert into usage select (added).*;
  return added;
end $$;

-- The counter as it stands, locked.
create or replace function leasehold.hold_counter(run leasehold.runs, scope text, name text, provider text, model text)
returns leasehold.usage_counters
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  of_run bigint := case hold_counter.scope when 'run' then (run).id else coalesce((run).conversation, (run).id) end;
  held usage_counters;
begin
  insert into usage_counters (scope, run_id, name, provider, model, tenant, updated_at)
  values (hold_counter.scope, of_run, hold_counter.name, hold_counter.provider, hold_counter.model, (run).tenant, clock())
      on conflict do nothing;
  select c.* into strict held
    from usage_counters c
   where c.scope = hold_counter.scope
     and c.run_id = of_run
     and c.name = hold_counter.name
     and c.provider = hold_counter.provider
     and c.model = hold_counter.model
     for update;
  return held;
end $$;

-- The run's own totals, and whether it has passed its own budget: its worker hears of that with the next renewal, which is rung for.
create or replace function leasehold.add_to_run(
  run bigint, input numeric, output numeric, cached numeric, cost numeric, unpriced bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  after_ runs;
begin
  update runs r
     set input_tokens = coalesce(r.input_tokens, 0) + add_to_run.input,
         output_tokens = coalesce(r.output_tokens, 0) + add_to_run.output,
         cached_tokens = coalesce(r.cached_tokens, 0) + add_to_run.cached,
         cost_usd = case when add_to_run.cost is null then r.cost_usd else coalesce(r.cost_usd, 0) + add_to_run.cost end,
         unpriced = r.unpriced + add_to_run.unpriced
   where r.id = add_to_run.run
  returning r.* into after_;
  if after_.ended_at is null and after_.budget_passed_at is null
     and after_.cost_usd > (select coalesce(j.budget_usd, a.budget_usd) from jobs j left join agents a on a.name = j.agent
                             where j.id = after_.job_id) then
    update runs r
       set budget_passed_at = clock()
     where r.id = after_.id;
    perform pg_notify(format('leasehold_worker_%s', after_.worker_id), '');
  end if;
end $$;

create or replace function leasehold.account_of(agent text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((select a.account from agents a where a.name = account_of.agent), account_of.agent);
end $$;

-- Usage beside the events: of a live run, or of one that was given up as lost and whose real outcome nobody has reported yet.
-- `marks` are the places in its stdout, so what is said twice counts once.
create or replace function leasehold.report_usage(
  worker bigint, token uuid, run bigint, run_token uuid, marks bigint[], datas jsonb[]) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs;
begin
  perform know_worker(report_usage.worker, report_usage.token);
  if cardinality(marks) is distinct from cardinality(datas) or array_position(marks, null) is not null then
    perform refuse_arguments('report_usage needs one mark for each report');
  end if;
  perform from heads h where h.job_id = (select r.job_id from runs r where r.id = report_usage.run) for update;
  select r.* into current_ from runs r where r.id = report_usage.run for update;
  if current_.id is null or current_.token is distinct from report_usage.run_token
     or (current_.ended_at is null and current_.worker_id = report_usage.worker        -- null of another's live run
         or current_.outcome = 'lost' and current_.late_outcome is null) is not true then
    perform refuse_run(run, run_token, worker);
  end if;
  perform record_usage(array_fill(current_.id, array[cardinality(marks)]), array_fill(current_.token, array[cardinality(marks)]),
                       marks, array_fill('usage'::text, array[cardinality(marks)]), datas, true);
end $$;
