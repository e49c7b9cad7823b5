-- What a session has said and done, run by run; and how far a reader has read a job.

-- When something was last said in a session, and under which number: looked up, so that no event changes the session's row.
create or replace view leasehold.session_activity with (security_invoker = true) as
select s.id, s.tenant, s.agent, s.adapter, s.key, s.backend_session_id, s.last_run, r.job_id as last_job,
       r.id is not null and r.ended_at is null as active,
       e.seq as last_event_seq, e.at as last_activity_at
  from leasehold.sessions s
  left join leasehold.runs r
    on r.id = s.last_run
  left join lateral (select v.seq, v.at
                       from leasehold.events v
                      where v.job_id = r.job_id
                      order by v.seq desc
                      limit 1) e on true;

-- The run a session's trace is about: the one named, which must be of it, else the live one, else the last. Null: it has none.
create or replace function leasehold.run_of_session(session leasehold.sessions, run bigint) returns leasehold.runs
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  found_ runs;
begin
  if run_of_session.run is null then
    select r.* into found_
      from runs r
     where r.ended_at is null
       and r.tenant = (session).tenant
       and r.agent = (session).agent
       and session_key(r) = (session).key
     order by r.id desc
     limit 1;
  end if;
  if found_.id is null then
    select r.* into found_
      from runs r
     where r.id = coalesce(run_of_session.run, (session).last_run)
       and r.tenant = (session).tenant
       and r.agent = (session).agent
       and session_key(r) = (session).key;
  end if;
  if run_of_session.run is not null and found_.id is null then
    raise exception 'run % is not of session %', run_of_session.run, (session).id
      using errcode = 'LH113', hint = 'SELECT last_run FROM leasehold.session_activity shows its newest; leave the run out for that.';
  end if;
  return found_;
end $$;

-- Events of a session's run, oldest first, behind `after_seq`. `only_output`: what the agent said and made, and how it ended, without
-- the machinery. A session without a run has none.
create or replace function leasehold.list_session_events(
  session bigint, run bigint default null, after_seq int default 0, rows_max int default 200, only_output boolean default false)
returns table (run_id bigint, job_id bigint, seq int, at timestamptz, level text, phase text, kind text, message text, data jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  known sessions;
  about runs;
begin
  select s.* into known from sessions s where s.id = list_session_events.session;
  if known.id is null or not may_act_for(known.tenant) then
    raise exception 'there is no session %', coalesce(list_session_events.session::text, 'NULL')
      using errcode = 'LH112', hint = 'SELECT id, agent, key FROM leasehold.sessions lists those you may see.';
  end if;
  about := run_of_session(known, list_session_events.run);
  return query
  select e.run_id, e.job_id, e.seq, e.at, e.level, e.phase, e.kind, e.message, e.data
    from events e
   where e.job_id = about.job_id
     and e.run_id = about.id
     and e.seq > coalesce(after_seq, 0)
     and (only_output is not true or e.kind in
           ('message', 'artifact', 'plan', 'error', 'result', 'succeeded', 'failed', 'blocked', 'timed_out', 'cancelled', 'interrupted', 'lost', 'retry_scheduled'))
   order by e.seq
   limit page_size(rows_max, 200, 500);
end $$;

-- This reader has seen the job's events up to `seq`. Going back does nothing. Answers whether something has happened since.
create or replace function leasehold.mark_job_read(job bigint, reader text, seq int) returns boolean
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  owner text := (select j.tenant from jobs j where j.id = mark_job_read.job);
  who text := reader_asked(mark_job_read.reader);
  now_at int := (select h.seq from heads h where h.job_id = mark_job_read.job);
begin
  if owner is null or not may_act_for(owner) then
    perform refuse_unknown_job(mark_job_read.job);
  elsif mark_job_read.seq is null or mark_job_read.seq < 0 or mark_job_read.seq > now_at then
    raise exception 'job % has no event % that could have been read', mark_job_read.job, coalesce(mark_job_read.seq::text, 'NULL')
      using errcode = 'LH114', hint = 'Pass the `seq` of the last event that was shown to the reader.';
  end if;
  insert into job_marks as m (tenant, job_id, login, reader, seq)
  values (owner, mark_job_read.job, session_user, who, mark_job_read.seq)
      on conflict (job_id, login, reader) do update
     set seq = excluded.seq,
         read_at = excluded.read_at
   where m.seq < excluded.seq;
  return now_at > (select m.seq from job_marks m where m.job_id = mark_job_read.job and m.login = session_user and m.reader = who);
end $$;
