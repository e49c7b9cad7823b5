-- Jobs that ended go, with all that hangs on them and never a part of it: by hand here, by age in retention.sql.

-- Everything that names a job, a run or a wakeup, in the order in which it goes. A new table adds one line; a test finds those that
-- have none. 'delete': the row goes with its job. 'clear': the row stays and forgets it. `only_`: of these rows alone. What is not
-- there (yet) is passed over.
create or replace function leasehold.hangs_on_jobs() returns table (relation text, named_in text, names text, then_ text, only_ text)
language sql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  values ('output',         'run_id',      'run',    'delete', null),
         ('events',         'job_id',      'job',    'delete', null),
         ('messages',       'job_id',      'job',    'delete', null),
         ('artifacts',      'job_id',      'job',    'delete', null),
         ('workspace_changes', 'job_id',   'job',    'delete', null),
         ('job_marks',      'job_id',      'job',    'delete', null),
         ('usage',          'run_id',      'run',    'delete', null),
         ('interactions',   'job_id',      'job',    'delete', null),
         ('turns',          'job_id',      'job',    'delete', null),
         ('turns',          'follow_up_job', 'job',  'clear',  null),
         ('sessions',       'last_run',    'run',    'delete', 'key like ''job:%'''),    -- its own; one that jobs share stays
         ('sessions',       'last_run',    'run',    'clear',  null),
         ('usage_counters', 'run_id',      'run',    'delete', 'scope in (''run'', ''session'') and (scope = ''run'' or
           not exists (select from leasehold.sessions s where s.conversation = t.run_id))'),       -- a session's goes on counting
         ('schedules',      'last_job',    'job',    'clear',  null),
         ('schedules',      'last_wakeup', 'wakeup', 'clear',  null),
         ('threads',        'last_job',    'job',    'clear',  null),
         ('workspaces',     'run_id',      'run',    'clear',  null),
         ('workspaces',     'last_run',    'run',    'clear',  null),
         ('workspaces',     'job_id',      'job',    'clear',  null),
         ('wakeups',        'job_id',      'job',    'delete', null),
         ('runs',           'job_id',      'job',    'delete', null),
         ('heads',          'job_id',      'job',    'delete', null)
$$;

-- Those of these jobs that ended before `past` and that nobody else holds, with everything of theirs locked in the order that holds
-- everywhere. It waits for nobody; whoever retries one of them waits for us, and finds it gone.
create or replace function leasehold.lock_ended(jobs bigint[], past timestamptz) returns bigint[]
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                       -- the keys, whatever the statistics say
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  ended bigint[];
  held bigint[];
begin
  ended := array(
    select one.id
      from (select a.id from unnest(lock_ended.jobs) a (id) order by a.id) wanted
     cross join lateral (select j.id
                           from leasehold.jobs j
                          where j.id = wanted.id
                            and coalesce(j.finished_at, 'infinity') < lock_ended.past      -- on the locked row: it may live again
                            for update skip locked) one);
  ended := array(
    select one.job_id
      from unnest(ended) wanted (id)
     cross join lateral (select h.job_id from heads h where h.job_id = wanted.id for update skip locked) one);
  held := array(
    select one.id
      from unnest(ended) wanted (id)
     cross join lateral (select r.id from runs r where r.job_id = wanted.id order by r.attempt for update skip locked) one);
  return array(
    select e.id
      from unnest(ended) e (id)
     where (select bool_and(r.id = any (held)) from runs r where r.job_id = e.id) is not false);
end $$;

-- Remove these jobs, whose rows the caller has locked with lock_ended(). Directories that may still be there are wanted gone in the
-- same breath: a run that was given up as lost and has not said what became of it has one.
create or replace function leasehold.remove_jobs(jobs bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  runs_ bigint[] := array(select r.id from runs r where r.job_id = any (remove_jobs.jobs));
  wakeups_ bigint[] := array(select w.id from wakeups w where w.job_id = any (remove_jobs.jobs));
  line record;
  gone bigint;
begin
  perform want_removal(w.host_id, w.keeper_id, 'run', 'runs/' || r.id, r.token)
     from unnest(runs_) one (id)
    cross join lateral (select u.* from leasehold.runs u where u.id = one.id offset 0) r
    cross join lateral (select k.host_id, k.keeper_id from workers k where k.id = r.worker_id offset 0) w
    where r.outcome = 'lost'
      and r.late_outcome is null;
  perform want_removal(s.host_id, s.keeper_id, 'session', s.path)
     from unnest(runs_) one (id)
    cross join lateral (select k.* from leasehold.sessions k where k.last_run = one.id offset 0) s
    where s.kind = 'directory'
      and s.key like 'job:%';
  perform remove_workspaces(array(
    select w.id
      from unnest(remove_jobs.jobs) one (id)
     cross join lateral (select k.id, k.key, k.status from leasehold.workspaces k where k.job_id = one.id offset 0) w
     where w.key = 'job:' || one.id
       and w.status = 'free'));
  insert into usage_days (day, tenant, agent, account, provider, model, runs, input_tokens, output_tokens, cached_tokens, cost_usd, unpriced)
  select (u.at at time zone 'UTC')::date, u.tenant, u.agent, u.account, u.provider, u.model, count(distinct u.run_id),
         sum(u.input_tokens), sum(u.output_tokens), sum(u.cached_tokens), sum(u.cost_usd), count(*) filter (where u.cost_usd is null)
    from usage u
   where u.run_id = any (runs_)
   group by 1, u.tenant, u.agent, u.account, u.provider, u.model;
  for line in select h.* from hangs_on_jobs() h where to_regclass('leasehold.' || quote_ident(h.relation)) is not null loop
    execute format(
      case line.then_ when 'delete' then 'delete from leasehold.%1$I t where t.%2$I = any ($1) and %3$s'
                      else 'update leasehold.%1$I t set %2$I = null where t.%2$I = any ($1) and %3$s' end,
      line.relation, line.named_in, coalesce(line.only_, 'true'))
      using case line.names when 'job' then remove_jobs.jobs when 'run' then runs_ else wakeups_ end;
  end loop;
  delete from leasehold.jobs j
   where j.id = any (remove_jobs.jobs)
     and coalesce(j.finished_at, 'infinity') < 'infinity';      -- so spelled, no index of ended jobs is read for it
  get diagnostics gone = row_count;
  if gone <> cardinality(remove_jobs.jobs) then
    raise exception 'only % of % jobs had ended', gone, cardinality(remove_jobs.jobs)      -- a mistake of ours: undo it all
      using errcode = 'LH096', hint = 'Nothing was removed. This is a mistake of Leasehold: please report it.';
  end if;
  return gone;
end $$;

-- Delete one job that has ended, with everything of it.
create or replace function leasehold.delete_job(job bigint) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  wanted record;
begin
  select j.id, j.tenant, j.status, j.finished_at into wanted
    from jobs j
   where j.id = delete_job.job
     for update;
  if not found or not may_act_for(wanted.tenant) then
    perform refuse_unknown_job(delete_job.job);
  elsif wanted.finished_at is null then
    raise exception 'job % is %, it cannot be deleted', wanted.id, wanted.status
      using errcode = 'LH095', hint = format('Only what has ended can go. SELECT leasehold.cancel(%s); ends it.', wanted.id);
  end if;
  perform from heads h where h.job_id = wanted.id for update;
  perform from runs r where r.job_id = wanted.id order by r.attempt for update;
  perform remove_jobs(array[wanted.id]);
  return 'deleted';
end $$;

-- Delete some of the caller's jobs that ended at least so many days ago, the oldest first: how many went. Without a number of days,
-- or with none above 0: whatever has ended. At most 100 at a time; what somebody else holds just now is left for the next time.
create or replace function leasehold.delete_old_jobs(days double precision default null, at_most int default 50) returns bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  mine text[] := my_tenants();                                  -- an administrator's too: others' by name, or by retention
begin
  return remove_jobs(lock_ended(
    old_jobs(mine, old_before(days), least(greatest(coalesce(at_most, 50), 1), 100)), old_before(days)));
end $$;

-- How many delete_old_jobs() would find, over all calls.
create or replace function leasehold.count_old_jobs(days double precision default null) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select count(*)
            from jobs j
           where j.tenant = any (my_tenants())
             and j.finished_at < old_before(days));
end $$;

create or replace function leasehold.old_before(days double precision) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when days > 0 then clock() - make_interval(secs => least(days, 36500) * 86400) else 'infinity' end;
end $$;

-- The oldest ended jobs of these tenants: a few from each, then the oldest of these.
create or replace function leasehold.old_jobs(tenants text[], past timestamptz, at_most int) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
begin
  return array(
    select one.id
      from unnest(old_jobs.tenants) t (name)
     cross join lateral (select j.id, j.finished_at
                           from leasehold.jobs j
                          where (j.tenant, j.finished_at) >= (t.name, '-infinity')      -- as rows, so that no other index
                            and (j.tenant, j.finished_at) < (t.name, old_jobs.past)     -- than the tenants' has their order
                            and j.finished_at is not null
                          order by j.tenant, j.finished_at, j.id
                          limit old_jobs.at_most) one
     order by one.finished_at, one.id
     limit old_jobs.at_most);
end $$;
