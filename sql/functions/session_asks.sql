-- What people ask of sessions: to go on with one by its id, to reset them, to see them.

-- The key of a job that names the session it is to go on with: the one that session has. What is no session of this tenant, agent and
-- adapter is refused in the same words whether somebody else has it or nobody; only an administrator may name one that was made elsewhere.
create or replace function leasehold.key_of_session(job leasehold.jobs) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text := case when job.session is not null then session_mistake(jsonb_build_object('id', job.session)) end;
  home text;
begin
  if job.session is null then
    return job.session_key;
  elsif job.new_session then
    raise exception 'a job cannot both go on with a session and begin a new one'
      using errcode = 'LH120', hint = 'Give either session or new_session.';
  elsif bad is not null then
    raise exception 'this is no session to go on with: %', bad
      using errcode = 'LH121', column = 'session', hint = 'Give the backend''s id of it, as in leasehold.sessions.';
  end if;
  select s.key into home
    from sessions s
   where s.backend_session_id = job.session
     and s.tenant = job.tenant
     and s.agent = job.agent
     and s.adapter = adapter_of(job.agent)
   order by s.key = job.session_key desc nulls last, s.updated_at desc
   limit 1;
  if home is null and (exists (select from sessions s where s.backend_session_id = job.session)
                       or not pg_has_role(session_user, 'leasehold_admin', 'member')) then
    raise exception 'agent "%" has no session "%"', job.agent, left(job.session, 100)
      using errcode = 'LH121', column = 'session',
            hint = 'SELECT agent, key, backend_session_id FROM leasehold.sessions lists those you may see.';
  elsif home <> job.session_key then
    raise exception 'session "%" has the key "%", not "%"', left(job.session, 100), left(home, 100), left(job.session_key, 100)
      using errcode = 'LH122', column = 'session_key', hint = 'Leave session_key out: whoever goes on with a session has its key.';
  end if;
  return coalesce(home, job.session_key);
end $$;

-- The concurrency key of jobs that have none of their own and go on with one conversation: two at once would tear it in two.
create or replace function leasehold.conversation_key(agent text, session_key text) returns text
language sql immutable
as $$
  select 'session:' || agent || ':' || session_key
$$;

-- A job without a session_key is its own conversation, 'job:<id>', and others go on with it when it is over: until then it holds no key
-- that they could wait for. A request that is there already passes: it is answered with its job.
create or replace function leasehold.refuse_own_conversation(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  live bigint := own_conversation_live(job.tenant, job.agent, job.session_key);
begin
  if live is null
     or exists (select from jobs j where j.tenant = job.tenant and j.idempotency_key = job.idempotency_key) then
    return;
  end if;
  raise exception 'job % is not over, and this is its conversation', live
    using errcode = 'LH126', column = 'session_key',
          hint = format('SELECT leasehold.prompt(%s, ''...'') says it to its agent; or insert this when it has ended.', live);
end $$;

-- The live job whose own conversation has this key, if it holds no concurrency key for it.
create or replace function leasehold.own_conversation_live(tenant text, agent text, session_key text) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if session_key !~ '^job:[1-9][0-9]{0,17}$' then
    return null;
  end if;
  return (select j.id
            from jobs j
           where j.id = substr(own_conversation_live.session_key, 5)::bigint
             and j.tenant = own_conversation_live.tenant
             and j.agent = own_conversation_live.agent
             and j.session_key is null
             and j.concurrency_key is distinct from conversation_key(j.agent, own_conversation_live.session_key)
             and j.status in ('queued', 'deferred', 'running', 'waiting'));
end $$;

-- A job without a key that is tried again: where there is a conversation of its own that others may have gone on with, its key is that one's.
create or replace function leasehold.key_of_retried(tenant text, agent text, job bigint, session_key text) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  own text := conversation_key(agent, 'job:' || job);
begin
  return case
    when key_of_retried.session_key is not null then null
    when holder_of(key_of_retried.tenant, own) is not null then own
    when exists (select from sessions s
                  where s.tenant = key_of_retried.tenant
                    and s.agent = key_of_retried.agent
                    and s.key = 'job:' || job) then own end;
end $$;

-- A job with a key of another kind that is tried again while somebody is in its conversation: nothing would keep the two apart.
create or replace function leasehold.refuse_gone_on_with(tenant text, agent text, job bigint, session_key text, concurrency_key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  key_ text := conversation_key(agent, coalesce(session_key, 'job:' || job));
  other bigint := own_conversation_live(tenant, agent, session_key);
begin
  if other is null and session_key is null and concurrency_key is distinct from key_ then
    other := live_of(tenant, key_);
  end if;
  if other is not null then
    raise exception 'job % goes on with the same conversation', other
      using errcode = 'LH126', hint = format('Retry this one when job %s has ended.', other);
  end if;
end $$;

-- The next run of the key begins a new session, and what runs from before say of theirs is not heard: neither their end nor a repeated
-- session line takes that back. Without a key: all of the agent. Live runs go on. Answers how many there were.
create or replace function leasehold.reset_session(agent text, key text default null, tenant text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := tenant_asked(reset_session.tenant);
  named text := lower(btrim(reset_session.agent));
  one sessions;
  many int := 0;
  unsaid int;
begin
  for one in
    select s.*
      from sessions s
     where s.tenant = owner
       and s.agent = named
       and (reset_session.key is null or s.key = btrim(reset_session.key))
     order by s.key, s.adapter                                       -- as record_said() takes them
       for update
  loop
    perform begin_anew(one, one.epoch + 1);
    many := many + 1;
  end loop;
  insert into sessions (tenant, agent, adapter, key, conversation, last_run, updated_at, epoch)      -- of runs that have not said theirs yet
  select owner, named, adapter_of(named), l.key, max(l.conversation), max(l.id), clock(), max(l.session_epoch) + 1
    from (select r.id, session_key(r) as key, r.conversation, r.session_epoch
            from runs r
           where r.ended_at is null
             and r.tenant = owner
             and r.agent = named) l
   where reset_session.key is null or l.key = btrim(reset_session.key)
   group by l.key
      on conflict do nothing;
  get diagnostics unsaid = row_count;
  if many + unsaid = 0 and reset_session.key is not null then
    perform refuse_unknown_session(reset_session.agent, reset_session.key);
  end if;
  return many + unsaid;
end $$;

-- The session has become another: the backend's, its storage or what is wrong with it. That a run uses it is in updated_at alone.
create or replace function leasehold.sessions_new_version() returns trigger
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  new.version := old.version + 1;
  return new;
end $$;

-- Sessions for people, the newest first. The state is that of now: of runs that live, not of a row that somebody must bring up to date.
drop view if exists leasehold.session_overview;
create view leasehold.session_overview with (security_invoker = true) as
select s.id, s.tenant, s.agent, s.adapter, s.key,
       case when live.run is not null then 'running' when s.kind = 'evicted' then 'evicted' when s.poisoned_reason is not null then 'poisoned'
            when s.backend_session_id is null then 'none' else 'idle' end as state,
       left(s.backend_session_id, 128) as display, live.run as live_run, s.last_run, s.last_error, s.poisoned_reason,
       s.kind as storage, s.host_id, s.bytes, s.expires_at, s.created_at, s.updated_at, s.version
  from leasehold.sessions s
  left join lateral (select max(r.id) as run
                       from leasehold.runs r
                       join leasehold.jobs j
                         on j.id = r.job_id
                      where r.ended_at is null
                        and r.tenant = s.tenant
                        and r.agent = s.agent
                        and r.session_epoch >= s.epoch
                        and coalesce(j.session_key, 'job:' || j.id) = s.key) live on true
 order by s.updated_at desc, s.id desc;
