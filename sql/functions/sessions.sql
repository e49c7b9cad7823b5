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

-- A run is opened: which session it goes on with. What its job names comes first, then what the job's own runs have said, then what its
-- key has; unless that is poisoned, or kept on another host. If it is evicted, the run is not to start.
create or replace function leasehold.runs_choose_session() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job record;
  known sessions;
  named record;
  elsewhere boolean;
begin
  select j.session, j.new_session, coalesce(j.session_key, 'job:' || j.id) as key, coalesce(a.adapter, 'command') as adapter,
         coalesce(a.private_config, false) as private into job
    from jobs j
    left join agents a
      on a.name = j.agent
   where j.id = new.job_id;
  select s.* into known
    from sessions s
   where s.tenant = new.tenant
     and s.agent = new.agent
     and s.adapter = job.adapter
     and s.key = job.key;
  new.private_config := job.private;
  new.session_epoch := coalesce(known.epoch, 0);
  new.session_evicted := coalesce(known.kind = 'evicted', false);
  new.conversation := new.id;
  elsewhere := known.kind = 'directory'
    and not exists (select from workers w where w.id = new.worker_id and (w.host_id, w.keeper_id) = (known.host_id, known.keeper_id));
  if job.session is not null or job.new_session then
    named := session_of_job(new.job_id, job.session, known);
    if named.anew then                                               -- what its key has is replaced when the new one is said
      new.session_epoch := new.session_epoch + 1;
      new.session_evicted := false;
      return new;
    end if;
    new.session_before := case when not new.session_evicted then named.backend end;
  elsif known.kind <> 'evicted' and known.poisoned_reason is null
        and not (new.private_config and known.kind = 'none') then    -- what there is was said in another configuration
    new.session_before := known.backend_session_id;
  end if;
  if elsewhere and new.session_before is not null then
    new.session_elsewhere := known.host_id;
    new.session_before := case when job.session is not null then new.session_before end;      -- asked for by name: its backend may say no
  elsif new.session_before = known.backend_session_id then
    new.conversation := known.conversation;
  end if;
  return new;
end $$;

-- What a job goes on with that names a session (`wanted`) or begins a new one (null): that, until a run of its own was in one. From then
-- on it is that, unless that was poisoned, or reset. `anew`: it is the one that begins a new one for its key.
create or replace function leasehold.session_of_job(job bigint, wanted text, known leasehold.sessions, out backend text, out anew boolean)
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  own runs;
begin
  select r.* into own
    from runs r
   where r.job_id = session_of_job.job
     and coalesce(r.session_after, r.session_before, r.poisoned) is not null
   order by r.attempt desc
   limit 1;
  anew := own.id is null and wanted is null;
  backend := case
    when own.id is null then wanted
    when own.poisoned is not null or own.session_epoch < coalesce(known.epoch, 0) then null
    when known.last_run = own.id then case when known.poisoned_reason is null then known.backend_session_id end
    else coalesce(own.session_after, own.session_before) end;
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
-- taken back, an evicted session stays as it is, and what was reset since the run was claimed stays reset.
create or replace function leasehold.set_session(run leasehold.runs, backend text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known sessions;
begin
  update runs r
     set session_after = set_session.backend
   where r.id = (run).id;
  select s.* into known
    from sessions s
   where s.tenant = (run).tenant
     and s.agent = (run).agent
     and s.adapter = adapter_of((run).agent)
     and s.key = session_key(run)
     for update;
  if known.epoch < (run).session_epoch then
    perform begin_anew(known, (run).session_epoch);
  elsif known.kind = 'directory' and (run).private_config and known.conversation <> (run).conversation
        and known.epoch = (run).session_epoch and set_session.backend is not null then
    perform leave_directory(known);
  end if;
  insert into sessions as s (tenant, agent, adapter, key, backend_session_id, conversation, last_run, updated_at, epoch)
  values ((run).tenant, (run).agent, adapter_of((run).agent), session_key(run), set_session.backend, (run).conversation, (run).id, clock(),
          (run).session_epoch)
      on conflict (tenant, agent, adapter, key) do update
     set backend_session_id = set_session.backend,
         poisoned_reason = case when s.backend_session_id = set_session.backend then s.poisoned_reason end,
         conversation = (run).conversation,
         last_run = (run).id,
         updated_at = clock()
   where s.kind <> 'evicted'
     and s.epoch = (run).session_epoch
     and (set_session.backend is not null or s.last_run = (run).id
          or s.backend_session_id in ((run).session_before, (run).session_after));
  if (run).private_config and set_session.backend is not null then
    perform keep_directory(run);
  end if;
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

-- Called when a run has ended: what its session is left with. A newer run's session is not touched.
create or replace function leasehold.end_session(run leasehold.runs, outcome text, reason text, message text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update sessions s
     set last_error = case when end_session.outcome <> 'succeeded' then left(coalesce(nullif(end_session.message, ''), end_session.reason), 1000) end,
         updated_at = clock()
   where s.last_run = (run).id
     and s.epoch = (run).session_epoch;
  if (run).private_config and not (run).session_evicted then
    perform settle_directory(run);
  end if;
end $$;

-- The row is that of a new session from here on; its directory, if it has one, goes when nobody is in it any more.
create or replace function leasehold.begin_anew(session leasehold.sessions, epoch bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform leave_directory(session);
  update sessions s
     set epoch = begin_anew.epoch,
         kind = 'none',
         path = null,
         backend_session_id = null,
         poisoned_reason = null,
         last_error = null,
         evicted_at = null,
         updated_at = clock()
   where s.id = (session).id;
end $$;
