-- Lists for people and programs: threads, jobs, events. Filters come before the limit, cursors name the columns of the order, limits
-- are brought into their range, and what the caller may not see is not there. See cursors.sql for their manners.

-- Active threads first, then unread ones, then the rest; in each the last active first. `state` is open (active or unread), active,
-- unread, ended, all, or a thread's status. Without a reader nothing is unread, rather than everything.
create or replace function leasehold.list_threads(
  state text default 'open', reader text default null, rows_max int default 50, after text default null, tenant text default null)
returns setof leasehold.listed_thread
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  owner text := tenant_asked(list_threads.tenant);
  who text := case when reader is not null then reader_asked(reader) end;
  wanted text := coalesce(nullif(btrim(list_threads.state), ''), 'open');
  shown int[] := thread_buckets(wanted, who);
  room int := page_size(rows_max, 50, 100);
  part text[] := cursor_parts(after, 'th([012])-([0-9]{1,18}|-[0-9]{1,17})-([0-9]{1,18}|-[0-9]{1,17})-((?:[0-9a-f]{2})+)');
  name_ text := name_in_cursor(after, part[4]);         -- a variable, so that it has the collation of the column
  bucket int;
  begun boolean;
  many int;
begin
  if part[1]::int <> all (shown) then
    perform refuse_cursor(after);
  end if;
  foreach bucket in array shown loop
    continue when bucket < part[1]::int;
    begun := coalesce(bucket = part[1]::int, false);
    return query
    select * from list_threads_of(owner, who, bucket, wanted, room,
      case when begun then from_micros(part[2]::bigint) end,
      case when begun then from_micros(part[3]::bigint) end,
      case when begun then name_ end);
    get diagnostics many = row_count;
    room := room - many;
    exit when room <= 0;
  end loop;
end $$;

-- Which parts of the order a state shows: 0 active, 1 unread, 2 neither.
create or replace function leasehold.thread_buckets(state text, reader text) returns int[]
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if state = 'unread' and reader is null then
    raise exception 'unread by whom?'
      using errcode = 'LH092', hint = 'Name a reader: list_threads(''unread'', reader => ''ann'').';
  elsif state not in ('open', 'active', 'unread', 'ended', 'all', 'idle', 'queued', 'running', 'waiting',
                      'succeeded', 'failed', 'blocked', 'timed_out', 'cancelled') then
    perform refuse_choice('state of a thread', state,
      'open, active, unread, ended, all, idle, queued, running, waiting, succeeded, failed, blocked, timed_out, cancelled');
  end if;
  return case
    when state = 'open' then '{0,1}'
    when state in ('active', 'queued', 'running', 'waiting') then '{0}'
    when state = 'unread' then '{1}'
    when state = 'all' then '{0,1,2}'
    else '{1,2}' end::int[];
end $$;

-- One part of the order, from behind a place in it.
create or replace function leasehold.list_threads_of(
  owner text, who text, bucket int, state text, room int, active_at timestamptz, changed_at timestamptz, name_ text)
returns setof leasehold.listed_thread
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
#variable_conflict use_column
begin
  return query
  select t.thread, t.title, t.status, t.active, s.unread, t.version, t.summary, t.last_job,
         t.resolved_at, t.last_activity_at, t.updated_at, t.tenant, t.tenant || '/' || t.thread,
         format('th%s-%s-%s-%s', bucket, to_micros(t.last_activity_at), to_micros(t.updated_at),
                encode(convert_to(t.thread, 'UTF8'), 'hex'))
    from leasehold.threads t
    left join lateral (select c.version
                         from read_cursors c
                        where c.tenant = t.tenant
                          and c.thread = t.thread
                          and c.login = session_user
                          and c.reader = who
                       offset 0) seen on true
   cross join lateral (select case when who is not null then not t.active and (seen.version is null or seen.version < t.version) end
                              as unread) s
   where t.tenant = owner
     and t.active = (bucket = 0)
     and (bucket = 0 or coalesce(s.unread, false) = (bucket = 1))
     and (state in ('open', 'active', 'unread', 'all') or t.status = state or (state = 'ended' and t.resolved_at is not null))
     and t.last_activity_at <= coalesce(active_at, 'infinity')
     and (name_ is null
          or (t.last_activity_at, t.updated_at) < (active_at, changed_at)
          or ((t.last_activity_at, t.updated_at) = (active_at, changed_at) and t.thread > name_))
   order by t.last_activity_at desc, t.updated_at desc, t.thread
   limit room;
end $$;

-- Jobs of one tenant. `sort` is newest, oldest, priority (highest first, then oldest) or started (oldest first, those that have
-- started); `status` is a status, live or ended.
create or replace function leasehold.list_jobs(
  status text default null, queue text default null, agent text default null, thread text default null, sort text default 'newest',
  rows_max int default 50, after text default null, tenant text default null)
returns setof leasehold.listed_job
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
  owner text := tenant_asked(list_jobs.tenant);
  place text[];
  behind text;
  order_ text;
begin
  case coalesce(list_jobs.sort, 'newest')
    when 'newest' then
      place := cursor_parts(after, 'newest-([0-9]{1,18})');
      behind := 'j.id < $7';
      order_ := 'j.id desc';
    when 'oldest' then
      place := cursor_parts(after, 'oldest-([0-9]{1,18})');
      behind := 'j.id > $7';
      order_ := 'j.id';
    when 'started' then
      place := cursor_parts(after, 'started-([0-9]{1,18})-([0-9]{1,18}|-[0-9]{1,17})');
      behind := '(j.started_at, j.id) > (from_micros($8), $7)';
      order_ := 'j.started_at, j.id';
    when 'priority' then
      place := cursor_parts(after, 'priority-([0-9]{1,18})-([0-9]{1,18}|-[0-9]{1,17})-([0-9]{1,4})');
      behind := 'j.priority <= $9 and (j.priority < $9 or (j.created_at, j.id) > (from_micros($8), $7))';
      order_ := 'j.priority desc, j.created_at, j.id';
    else
      perform refuse_choice('sort of jobs', list_jobs.sort, 'newest, oldest, priority, started');
  end case;
  return query execute format($list$
    select j.id, j.queue, j.agent, j.status, j.reason, j.priority, coalesce(j.title, one_line(j.prompt, 80)), j.thread, j.attempts,
           j.created_at, j.run_at, j.started_at, j.finished_at, j.tenant, %L || '-' || j.id || %s
      from leasehold.jobs j
     where j.tenant = $1 %s %s
     order by %s
     limit $6 $list$,
    coalesce(list_jobs.sort, 'newest'),
    case list_jobs.sort when 'started' then $q$'-' || to_micros(j.started_at)$q$
                        when 'priority' then $q$'-' || to_micros(j.created_at) || '-' || j.priority$q$ else $q$''$q$ end,
    job_filters(list_jobs.status, list_jobs.queue, list_jobs.agent, list_jobs.thread, list_jobs.sort),
    case when place is not null then 'and ' || behind else '' end,
    order_)
  using owner, list_jobs.status, nullif(btrim(list_jobs.queue), ''), lower(btrim(list_jobs.agent)), btrim(list_jobs.thread),
        page_size(rows_max, 50, 100), place[1]::bigint, place[2]::bigint, place[3]::int;
end $$;

-- Only the conditions that are asked for, so that each list finds its index.
create or replace function leasehold.job_filters(status text, queue text, agent text, thread text, sort text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if status not in ('live', 'ended', 'queued', 'deferred', 'running', 'waiting', 'succeeded', 'failed', 'blocked', 'timed_out', 'cancelled') then
    perform refuse_choice('status of a job', status,
      'live, ended, queued, deferred, running, waiting, succeeded, failed, blocked, timed_out, cancelled');
  end if;
  return concat_ws(' ',
    case
      when status is null then ''
      when status = 'live' then 'and j.finished_at is null'
      when status = 'ended' then 'and j.finished_at is not null'
      when status in ('queued', 'deferred', 'running', 'waiting') then 'and j.finished_at is null and j.status = $2'
      else 'and j.finished_at is not null and j.status = $2' end,
    case when btrim(queue) <> '' then 'and j.queue = $3' end,
    case when agent is not null then 'and j.agent = $4' end,
    case when thread is not null then 'and j.thread = $5' end,
    case when sort = 'started' then 'and j.started_at is not null' end);
end $$;

-- Events of one job, oldest first. Their numbers have no gaps, so the last `seq` is the cursor.
create or replace function leasehold.list_events(job bigint, after_seq bigint default 0, rows_max int default 200)
returns table (seq int, at timestamptz, run_id bigint, level text, phase text, kind text, message text, data jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
  owner text := (select j.tenant from jobs j where j.id = list_events.job);
begin
  if owner is null or not may_act_for(owner) then
    perform refuse_unknown_job(list_events.job);
  elsif after_seq < 0 then
    perform cursor_parts(after_seq::text, '[0-9]+');
  end if;
  return query
  select e.seq, e.at, e.run_id, e.level, e.phase, e.kind, e.message, e.data
    from events e
   where e.job_id = list_events.job
     and e.seq > coalesce(after_seq, 0)
   order by e.seq
   limit page_size(rows_max, 200, 1000);
end $$;

-- Events of all jobs of a thread, newest first.
create or replace function leasehold.list_thread_events(thread text, rows_max int default 100, after text default null, tenant text default null)
returns table (job_id bigint, seq int, at timestamptz, run_id bigint, level text, phase text, kind text, message text, data jsonb, cursor text)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  owner text := tenant_asked(list_thread_events.tenant);
  place text[] := cursor_parts(after, 'te([0-9]{1,18}|-[0-9]{1,17})-([0-9]{1,18})-([0-9]{1,9})');
begin
  return query
  select e.job_id, e.seq, e.at, e.run_id, e.level, e.phase, e.kind, e.message, e.data,
         'te' || to_micros(e.at) || '-' || e.job_id || '-' || e.seq
    from jobs j
   cross join lateral (select v.* from leasehold.events v where v.job_id = j.id) e
   where j.tenant = owner
     and j.thread = btrim(list_thread_events.thread)
     and (place is null or (e.at, e.job_id, e.seq) < (from_micros(place[1]::bigint), place[2]::bigint, place[3]::int))
   order by e.at desc, e.job_id desc, e.seq desc
   limit page_size(rows_max, 100, 1000);
end $$;
