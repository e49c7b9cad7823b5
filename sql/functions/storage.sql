-- What a session has kept in a directory of its host, and how that goes: evict_session() or its own time decides it, a removal
-- (removals.sql) performs it. An evicted session stays evicted: whoever needs it fails at once, until it is forgotten.

-- Does a run live that is in this session? One that was only to learn that it is evicted is in none.
create or replace function leasehold.session_lives(session leasehold.sessions) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return exists (select from runs r
                  where r.ended_at is null
                    and r.tenant = (session).tenant
                    and r.agent = (session).agent
                    and not r.session_evicted
                    and session_key(r) = (session).key);
end $$;

-- The live run's session has a directory `path` below the state directory of its worker; so large, and needed for `keep` from now on
-- (null: until somebody evicts it). Said again it is what it is now. Not of a session that is evicted, nor another session's directory.
create or replace function leasehold.report_storage(
  worker bigint, token uuid, run bigint, run_token uuid, path text, bytes bigint default null, keep interval default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(report_storage.worker, report_storage.token, report_storage.run, report_storage.run_token);
  self workers := (select w from leasehold.workers w where w.id = report_storage.worker);
  mistake text := case
    when coalesce(report_storage.path, '') !~ '^sessions/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$' then 'its path is not sessions/ and a name'
    when report_storage.bytes < 0 then 'it has less than no bytes'
    when report_storage.keep <= interval '0' then 'it is to be kept for no time' end;
  stored bigint;
begin
  if mistake is not null then
    perform refuse_arguments('this is no storage of a session: ' || mistake);
  end if;
  perform from removals m
    where m.host_id = self.host_id and m.keeper_id = self.keeper_id and m.path = report_storage.path and m.done_at is null;
  if not found then
    update sessions s
       set kind = 'directory',
           host_id = self.host_id,
           keeper_id = self.keeper_id,
           path = report_storage.path,
           bytes = coalesce(report_storage.bytes, s.bytes),
           expires_at = clock() + least(report_storage.keep, interval '1000 years'),
           stored_at = clock()
     where s.tenant = current_.tenant
       and s.agent = current_.agent
       and s.adapter = adapter_of(current_.agent)
       and s.key = session_key(current_)
       and (s.kind = 'none'
            or (s.kind = 'directory' and (s.host_id, s.keeper_id, s.path) = (self.host_id, self.keeper_id, report_storage.path)))
       and not exists (select from sessions o
                        where o.kind = 'directory' and o.id <> s.id
                          and (o.host_id, o.keeper_id, o.path) = (self.host_id, self.keeper_id, report_storage.path))
    returning s.id into stored;
  end if;
  if stored is null then
    raise exception 'run % has no session that could have the directory %', current_.id, report_storage.path
      using errcode = 'LH086',
            hint = 'It must have said its session first; one that is evicted, has another directory, or another session''s, gets none.';
  end if;
end $$;

-- What the session has kept goes: whoever needs it afterwards fails with session_evicted. Again is harmless.
create or replace function leasehold.evict_session(agent text, key text, tenant text default null) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := tenant_asked(evict_session.tenant);
  one sessions;
  many int := 0;
begin
  for one in
    select s.*
      from sessions s
     where s.tenant = owner
       and s.agent = lower(btrim(evict_session.agent))
       and s.key = btrim(evict_session.key)
     order by s.id
       for update
  loop
    if session_lives(one) then
      perform refuse_live_session(one);
    end if;
    perform evict(one);
    many := many + 1;
  end loop;
  if many = 0 then
    perform refuse_unknown_session(evict_session.agent, evict_session.key);
  end if;
  return 'evicted';
end $$;

-- A run that was being claimed while we looked may be in it all the same: take_removals() looks again.
create or replace function leasehold.evict(session leasehold.sessions) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if (session).kind = 'directory' then
    perform want_removal((session).host_id, (session).keeper_id, 'session', (session).path);
  end if;
  update sessions s
     set kind = 'evicted',
         backend_session_id = null,
         expires_at = null,
         evicted_at = clock(),
         updated_at = clock()
   where s.id = (session).id
     and s.kind <> 'evicted';
end $$;

-- Forget a session of an agent, or all of them: the next job with its key begins a new conversation. What has a directory is evicted
-- first, and what a run is in stays; both are refused if they are named. Answers how many are forgotten.
create or replace function leasehold.forget_session(agent text, key text default null, tenant text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := tenant_asked(forget_session.tenant);
  one sessions;
  gone bigint[] := '{}';
begin
  for one in
    select s.*
      from sessions s
     where s.tenant = owner
       and s.agent = lower(btrim(forget_session.agent))
       and (forget_session.key is null or s.key = btrim(forget_session.key))
     order by s.key, s.adapter                                       -- as record_said() takes them
       for update
  loop
    if one.kind <> 'directory' and not session_lives(one) then
      gone := gone || one.id;
    elsif forget_session.key is not null then
      perform refuse_live_session(one);
    end if;
  end loop;
  perform forget_sessions(gone);
  return cardinality(gone);
end $$;

-- These go, and the counters of conversations of which no run is left.
create or replace function leasehold.forget_sessions(gone bigint[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  begun bigint[] := array(select s.conversation from sessions s where s.id = any (gone));
begin
  delete from sessions s where s.id = any (gone);
  delete from usage_counters c
   where c.scope = 'session'
     and c.run_id = any (begun)
     and not exists (select from runs r where r.id = c.run_id)
     and not exists (select from sessions s where s.conversation = c.run_id);
end $$;

create or replace function leasehold.refuse_live_session(session leasehold.sessions) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'session "%" of agent "%" %', left((session).key, 100), (session).agent,
                  case when session_lives(session) then 'has a run that lives' else 'has a directory' end
    using errcode = 'LH086', hint = case when session_lives(session) then 'Wait for its end, or cancel its job.'
      else format('SELECT leasehold.evict_session(%L, %L); wants that gone first.', (session).agent, (session).key) end;
end $$;

create or replace function leasehold.refuse_unknown_session(agent text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'agent "%" has no session %', left(agent, 100), coalesce(quote_literal(left(key, 100)), 'NULL')
    using errcode = 'LH085', hint = 'SELECT agent, key FROM leasehold.sessions lists those you may see; without a session_key it is job:<id>.';
end $$;

-- May a directory that was wanted gone be taken now? 'no': a session has it; 'later': a run may be in it. The caller holds the claim's
-- lock, so whoever was being claimed while it was evicted is seen.
create or replace function leasehold.storage_is_free(removal leasehold.removals) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  one sessions;
begin
  for one in
    select s.*
      from sessions s
     where s.host_id = (removal).host_id
       and s.keeper_id = (removal).keeper_id
       and s.path = (removal).path
  loop
    if one.kind = 'directory' then
      return 'no';
    elsif session_lives(one) then
      return 'later';
    end if;
  end loop;
  if exists (select from runs r                                       -- its session may be another by now: it was reset, or left behind
              where r.ended_at is null
                and r.private_config
                and (removal).path = 'sessions/' || r.conversation) then
    return 'later';
  end if;
  return 'yes';
end $$;

-- Sessions whose directory has had its time are evicted, the longest overdue first; rows that nobody has used for as long as the rule
-- keeps them are forgotten. Those of single jobs go with their job. What a run is in is looked at again in some minutes.
create or replace function leasehold.sweep_sessions(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  one sessions;
  done bigint := 0;
  old bigint[] := '{}';
begin
  for one in
    select s.* from sessions s where s.expires_at <= clock() order by s.expires_at limit (rule).batch for update skip locked
  loop
    done := done + 1;
    if session_lives(one) then
      update sessions s set expires_at = clock() + interval '5 minutes' where s.id = one.id;
    else
      perform evict(one);
    end if;
  end loop;
  for one in
    select s.*
      from sessions s
     where s.updated_at < clock() - (rule).keep
       and s.kind <> 'directory'
       and s.key not like 'job:%'
     order by s.updated_at
     limit (rule).batch
       for update skip locked
  loop
    continue when session_lives(one);
    old := old || one.id;
  end loop;
  perform forget_sessions(old);
  return done + cardinality(old);
end $$;
