-- The conversations of agents with their backends: which one a next attempt goes on with, and when nobody goes on with one.

create or replace function leasehold.session_key(run leasehold.runs) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((select j.session_key from jobs j where j.id = (run).job_id), 'job:' || (run).job_id);
end $$;

create or replace function leasehold.adapter_of(agent text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((select a.adapter from agents a where a.name = adapter_of.agent), 'command');
end $$;

-- A run is opened: it goes on with the session of its key, unless that is poisoned. If it is evicted, the run is not to start.
create or replace function leasehold.runs_choose_session() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  select case when usable then s.backend_session_id end, case when usable then s.conversation end, s.kind = 'evicted'
    into new.session_before, new.conversation, new.session_evicted
    from sessions s
   cross join lateral (select s.kind <> 'evicted' and s.poisoned_reason is null and s.backend_session_id is not null) one (usable)
   where s.tenant = new.tenant
     and s.agent = new.agent
     and s.adapter = adapter_of(new.agent)
     and s.key = session_key(new);
  new.session_evicted := coalesce(new.session_evicted, false);
  new.conversation := coalesce(new.conversation, new.id);
  return new;
end $$;

create or replace function leasehold.session_mistake(data jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when jsonb_typeof(data) is distinct from 'object' or not data ? 'id' then 'it has no id'
    when jsonb_typeof(data -> 'id') = 'null' then null
    when jsonb_typeof(data -> 'id') <> 'string' then 'its id is not a string'
    when btrim(data ->> 'id') = '' then 'its id is blank'
    when length(data ->> 'id') > 500 then 'its id is longer than 500 characters'
    when data ->> 'id' ~ '[[:cntrl:]]' then 'its id has a control character' end;
end $$;

-- The run is in this session of its backend; null: in none that anybody could go on with. What another run has said since then is not
-- taken back, and an evicted session stays as it is.
create or replace function leasehold.set_session(run leasehold.runs, backend text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update runs r
     set session_after = set_session.backend
   where r.id = (run).id;
  insert into sessions as s (tenant, agent, adapter, key, backend_session_id, conversation, last_run, updated_at)
  values ((run).tenant, (run).agent, adapter_of((run).agent), session_key(run), set_session.backend, (run).conversation, (run).id, clock())
      on conflict (tenant, agent, adapter, key) do update
     set backend_session_id = set_session.backend,
         poisoned_reason = case when s.backend_session_id = set_session.backend then s.poisoned_reason end,
         conversation = (run).conversation,
         last_run = (run).id,
         updated_at = clock()
   where s.kind <> 'evicted'
     and (set_session.backend is not null or s.last_run = (run).id
          or s.backend_session_id in ((run).session_before, (run).session_after));
end $$;

create or replace function leasehold.report_session(worker bigint, token uuid, run bigint, run_token uuid, backend_session_id text)
returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(report_session.worker, report_session.token, report_session.run, report_session.run_token);
  bad text := session_mistake(jsonb_build_object('id', report_session.backend_session_id));
begin
  if bad is not null then
    perform refuse_arguments('this is no session: ' || bad);
  end if;
  perform set_session(current_, report_session.backend_session_id);
end $$;

-- Called when a run has ended without success. A session is poisoned when the backend rejects it, or when a run that went on with it
-- fails for the same reason as the one before. Answers null: it is not; 'fresh': the next attempt begins a new one; 'stop': the job must
-- not go on by itself, because a tool has run that a fresh start would run again, or because it has had its fresh start.
create or replace function leasehold.poison_session(job leasehold.jobs, run bigint, outcome text, reason text) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad runs;
begin
  select r.* into strict bad from runs r where r.id = poison_session.run;
  if bad.session_before is null or outcome not in ('failed', 'timed_out')
     or reason <> 'session_rejected'
        and (poison_session.outcome, poison_session.reason) is distinct from (
              select (r.outcome, r.reason)
                from runs r
               where r.job_id = bad.job_id
                 and r.attempt < bad.attempt
                 and r.outcome not in ('interrupted', 'lost')
               order by r.attempt desc
               limit 1) then
    return null;
  end if;
  update runs r
     set poisoned = poison_session.reason
   where r.id = bad.id;
  update sessions s
     set poisoned_reason = poison_session.reason,
         updated_at = clock()
   where s.tenant = bad.tenant
     and s.agent = bad.agent
     and s.key = session_key(bad)
     and s.backend_session_id in (bad.session_before, bad.session_after);
  return case
    when exists (select from events e where e.job_id = bad.job_id and e.run_id = bad.id and e.kind in ('tool_call', 'events_truncated'))
      or exists (select from runs r where r.job_id = bad.job_id and r.id <> bad.id and r.poisoned is not null) then 'stop'
    else 'fresh' end;
end $$;
