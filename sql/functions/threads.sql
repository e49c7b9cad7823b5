-- Threads follow their jobs: every transition of a job with a thread brings the thread's row up to date in the same transaction.
--
-- A thread's row is locked last of all, while committing, in the order of (tenant, thread), and written from what its jobs are
-- then: so no two transactions wait for each other, a producer's open transaction holds no thread, and what is written is true
-- whoever came first. Until the commit a transition is a row of thread_moves. If the thread is held by somebody all the same
-- (SET CONSTRAINTS IMMEDIATE in an open transaction) or our snapshot is too old, its move stays and take_up_moves() repeats it.

-- Triggers on jobs; their WHEN keeps jobs without a thread away from here.
create or replace function leasehold.jobs_move_thread() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    insert into thread_moves (tenant, thread) values (old.tenant, old.thread);
  else
    insert into thread_moves (tenant, thread, job) values (new.tenant, new.thread, new.id);
  end if;
  return null;
end $$;

-- The condition of the deferred trigger on thread_moves: only the first row of a transaction is queued for the commit.
create or replace function leasehold.first_move_of_transaction() returns boolean
language plpgsql volatile
as $$
begin
  if current_setting('leasehold.moved', true) = 'yes' then
    return false;
  end if;
  perform set_config('leasehold.moved', 'yes', true);
  return true;
end $$;

create or replace function leasehold.threads_at_commit() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  perform set_config('leasehold.moved', '', true);                -- should it fire before the end, the next move is queued again
  begin
    perform project_thread(mine.tenant, mine.thread)
       from (select distinct m.tenant, m.thread
               from thread_moves m
              where m.xid = pg_current_xact_id()
              order by m.tenant, m.thread) mine;
  exception when lock_not_available or serialization_failure or deadlock_detected then
    null;                                                          -- the moves stay: take_up_moves()
  end;
  return null;
end $$;

-- Write one thread's row from its jobs. Read committed: each statement sees what was committed before the row was locked.
-- Repeatable read: had anybody moved the thread since our snapshot, locking it would have failed.
create or replace function leasehold.project_thread(tenant text, thread text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '500ms'
as $$
declare
  now_ timestamptz := clock();
  known threads;
  stands record;
  said record;
begin
  loop
    insert into threads (tenant, thread, last_activity_at, updated_at)
    values (project_thread.tenant, project_thread.thread, now_, now_)
        on conflict do nothing;
    select t.* into known
      from threads t
     where t.tenant = project_thread.tenant
       and t.thread = project_thread.thread
       for update;
    exit when found;                                               -- a sweep has just taken it
  end loop;
  with done as (
    delete from thread_moves m
     where m.xid = pg_current_xact_id()
       and m.tenant = project_thread.tenant
       and m.thread = project_thread.thread
    returning m.id, m.job, m.title, m.summary
  )
  select (array_agg(d.title order by d.id desc) filter (where d.title is not null))[1] as title,
         (array_agg(d.summary order by d.id desc) filter (where d.summary is not null))[1] as summary,
         min(d.job) as job
    into said
    from done d;
  stands := thread_stands(project_thread.tenant, project_thread.thread);
  update threads t
     set status = stands.status,
         active = stands.active,
         title = coalesce(said.title, t.title, title_of_job(said.job)),
         summary = coalesce(said.summary, case when stands.ended_at is distinct from t.last_ended_at
                                                 or stands.ended is distinct from t.last_job then stands.summary end, t.summary),
         last_job = coalesce(stands.ended, t.last_job),
         last_ended_at = coalesce(stands.ended_at, t.last_ended_at),
         resolved_at = case when not stands.active then coalesce(stands.ended_at, t.resolved_at) end,
         last_activity_at = greatest(now_, t.last_activity_at),
         updated_at = now_,
         version = nextval('leasehold.thread_versions'),
         xid = pg_current_xact_id()
   where t.tenant = project_thread.tenant
     and t.thread = project_thread.thread;
end $$;

-- What the jobs of a thread say: running before waiting before queued (deferred counts as queued) before how the last one ended.
-- One probe of an index for each question, however many jobs there are.
create or replace function leasehold.thread_stands(
  tenant text, thread text,
  out status text, out active boolean, out ended bigint, out ended_at timestamptz, out summary text)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
declare
  last_ record;
begin
  select j.status into status
    from unnest('{running,waiting,queued,deferred}'::text[]) with ordinality one (status, place)
   cross join lateral (select k.status
                         from jobs k
                        where k.tenant = thread_stands.tenant
                          and k.thread = thread_stands.thread
                          and k.status = one.status
                          and k.finished_at is null
                        limit 1) j
   order by one.place
   limit 1;
  active := status is not null;
  select j.id, j.status, j.finished_at, job_summary(j.result) as summary into last_
    from jobs j
   where j.tenant = thread_stands.tenant
     and j.thread = thread_stands.thread
     and j.finished_at is not null
   order by j.finished_at desc, j.id desc
   limit 1;
  status := coalesce(nullif(status, 'deferred'), case when active then 'queued' else coalesce(last_.status, 'idle') end);
  ended := last_.id;
  ended_at := last_.finished_at;
  summary := last_.summary;
end $$;

-- What a job had to say of itself: its result if that is a text, else the `summary`, `text` or `message` in it. At most 2000 characters.
create or replace function leasehold.job_summary(result jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if jsonb_typeof(result) = 'string' then
    return left(nullif(btrim(result #>> '{}', e' \t\r\n'), ''), 2000);
  end if;
  return (select left(btrim(result ->> one.key, e' \t\r\n'), 2000)
            from unnest('{summary,text,message}'::text[]) with ordinality one (key, place)
           where jsonb_typeof(result -> one.key) = 'string'
             and btrim(result ->> one.key, e' \t\r\n') <> ''
           order by one.place
           limit 1);
end $$;

-- A thread is called as its first job, up to 200 characters, or by the beginning of its prompt, up to 120, on one line.
create or replace function leasehold.title_of_job(job bigint) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select coalesce(one_line(j.title, 200), one_line(j.prompt, 120))
            from jobs j
           where j.id = title_of_job.job);
end $$;

-- What a job of a thread is to do that brings no prompt: what was last asked there, else what the thread comes to, else what it is
-- called. Null: nobody knows of such a thread. What was made up like this was asked by nobody.
create or replace function leasehold.thread_prompt(tenant text, thread text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
  made_up constant text := 'Work on thread: ';
  said record;
  newest record;
  known record;
begin
  select m.job_id, m.content into said
    from messages m
   where m.tenant = thread_prompt.tenant
     and m.thread = thread_prompt.thread
     and m.role = 'user'
     and btrim(m.content, e' \t\r\n') <> ''
     and not starts_with(m.content, made_up)
   order by m.tenant desc, m.thread desc, m.id desc
   limit 1;
  select j.id, j.prompt into newest                                    -- it may not have begun, or left no message
    from jobs j
   where j.tenant = thread_prompt.tenant
     and j.thread = thread_prompt.thread
     and not starts_with(j.prompt, made_up)
   order by j.tenant desc, j.thread desc, j.id desc
   limit 1;
  if newest.id > said.job_id or said.job_id is null and newest.id is not null then
    return newest.prompt;
  elsif said.job_id is not null then
    return said.content;
  end if;
  select t.title, t.summary into known from threads t where t.tenant = thread_prompt.tenant and t.thread = thread_prompt.thread;
  if not found then                                                    -- named in this very transaction
    select (array_agg(m.title order by m.id desc) filter (where m.title is not null))[1] as title,
           (array_agg(m.summary order by m.id desc) filter (where m.summary is not null))[1] as summary,
           count(*) as many into known
      from thread_moves m
     where m.xid = pg_current_xact_id_if_assigned()
       and m.tenant = thread_prompt.tenant
       and m.thread = thread_prompt.thread
       and m.job is null;
    if known.many = 0 then
      return null;
    end if;
  end if;
  return coalesce(known.summary, made_up || coalesce(known.title, thread_prompt.thread));
end $$;

-- Make a thread by hand, or say what it is called or comes to. NULL leaves what is there. Written at commit, as everything here.
create or replace function leasehold.set_thread(thread text, title text default null, summary text default null, tenant text default null)
returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := tenant_asked(set_thread.tenant);
  name_ text := nullif(btrim(set_thread.thread), '');
begin
  if name_ is null or octet_length(name_) > 500 then
    raise exception 'a thread needs a name of 1 to 500 bytes'
      using errcode = 'LH092', hint = 'It is what the jobs have in their column `thread`.';
  elsif length(btrim(set_thread.title)) > 200 or length(set_thread.summary) > 2000 then
    raise exception 'the % of a thread has at most % characters',
                    case when length(btrim(set_thread.title)) > 200 then 'title' else 'summary' end,
                    case when length(btrim(set_thread.title)) > 200 then 200 else 2000 end
      using errcode = 'LH092', hint = 'Shorten it; details belong into the jobs.';
  end if;
  insert into thread_moves (tenant, thread, title, summary)
  values (owner, name_, one_line(set_thread.title, 200), nullif(btrim(set_thread.summary), ''));
end $$;

-- Moves that were left: make them ours, so that they are repeated when we commit. Called now and then by the workers.
create or replace function leasehold.take_up_moves() returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if not exists (select from thread_moves m where m.xid is distinct from pg_current_xact_id_if_assigned()) then
    return;
  end if;
  with taken as (
    delete from thread_moves m
     where m.ctid = any (array(select l.ctid
                                 from thread_moves l
                                where l.xid <> pg_current_xact_id()
                                limit 100
                                  for update skip locked))
    returning m.id, m.tenant, m.thread, m.job, m.title, m.summary
  )
  insert into thread_moves (tenant, thread, job, title, summary)
  select t.tenant, t.thread, t.job, t.title, t.summary
    from taken t
   order by t.id;
end $$;
