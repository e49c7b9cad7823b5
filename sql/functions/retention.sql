-- What is kept how long: the table `retention`, one rule a row, swept in small batches by one daemon at a time.
--
-- A sweep never waits for anybody and takes only what it can lock at once; what it must leave it finds again in the next pass.

-- One batch of the next rule behind `after`, in the order of their names: which rule, how many rows went, and is there more of it.
-- No row: the round is over, or another daemon is at it.
create or replace function leasehold.sweep_retention(worker bigint, token uuid, after text default null)
returns table (what text, removed bigint, more boolean)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '1s'                                            -- of what names a job and is held: another time
as $$
#variable_conflict use_column
declare
  rule retention;
begin
  perform hold_worker(sweep_retention.worker, sweep_retention.token);
  if not pg_try_advisory_xact_lock(hashtextextended('leasehold.retention', 0)) then
    return;
  end if;
  select r.* into rule
    from retention r
   where (r.keep is not null or r.what in ('sessions', 'usage'))      -- a session has a time of its own, sums are folded
     and r.what <> 'orphans'                                       -- see find_orphans()
     and r.what > coalesce(sweep_retention.after, '')
   order by r.what
   limit 1
     for update skip locked;                                       -- an administrator is changing it
  if rule.what is null then
    return;
  end if;
  rule.batch := least(greatest(rule.batch, 1), 1000);
  rule.keep := least(rule.keep, interval '1000 years');             -- longer ago there are no moments
  if rule.what in ('jobs', 'output', 'events', 'messages', 'artifacts', 'workspace_changes') then
    select s.* into removed, more from sweep_past(rule) s;
  elsif rule.what = 'workers' then
    removed := sweep_workers(rule);
  elsif rule.what = 'removals' then
    removed := sweep_removals(rule);
  elsif rule.what = 'usage' then
    removed := sweep_usage(rule);
  elsif rule.what = 'threads' then
    removed := sweep_threads(rule);
  elsif rule.what = 'sessions' then
    removed := sweep_sessions(rule);
  elsif rule.what = 'workspaces' then
    removed := sweep_workspaces(rule);
  elsif rule.what = 'wakeups' then
    removed := sweep_wakeups(rule);
  end if;
  what := rule.what;
  more := coalesce(more, removed >= rule.batch, false);
  update retention r
     set removed = r.removed + coalesce(sweep_retention.removed, 0),
         last_removed_at = case when sweep_retention.removed > 0 then clock() else r.last_removed_at end,
         swept_at = clock()
   where r.what = rule.what;
  return next;
end $$;

-- The next jobs of the past, from the mark of the last batch on: they go, or their output, or their events. A batch ends early when
-- it has come to 20000 rows, so that no transaction is long; a single job may have more.
create or replace function leasehold.sweep_past(rule leasehold.retention, out removed bigint, out more boolean)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the index of ended jobs, whatever the statistics say
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set jit = off
as $$
declare
  past timestamptz := clock() - (rule).keep;
  anew boolean := coalesce((rule).pass_began_at < clock() - interval '1 day', true) or (rule).mark_at > past;
  mark record;
  seen record;
begin
  select case when anew then '-infinity' else (rule).mark_at end as at, case when anew then 0 else (rule).mark_id end as id into mark;
  select array_agg(s.id) filter (where s.before < 20000) as ids, count(*) as found_, count(*) filter (where s.before < 20000) as taken,
         (array_agg(s.finished_at order by s.finished_at desc, s.id desc) filter (where s.before < 20000))[1] as at,
         (array_agg(s.id order by s.finished_at desc, s.id desc) filter (where s.before < 20000))[1] as id
    into seen
    from (select c.*, sum(c.rows_) over (order by c.finished_at, c.id) - c.rows_ as before
            from (select j.id, j.finished_at,
                         coalesce((select h.seq from heads h where h.job_id = j.id), 0) + 100 * (j.attempts + j.interruptions) as rows_
                    from leasehold.jobs j
                   where j.finished_at < past
                     and (j.finished_at, j.id) > (mark.at, mark.id)
                   order by j.finished_at, j.id
                   limit (rule).batch) c) s;
  removed := case when seen.taken = 0 then 0
                  when (rule).what = 'jobs' then remove_jobs(lock_ended(seen.ids, past))
                  when (rule).what = 'output' then remove_output(lock_ended(with_output(seen.ids), past))
                  when (rule).what = 'events' then remove_events(lock_ended(with_events(seen.ids), past))
                  else remove_said((rule).what, lock_ended(with_said((rule).what, seen.ids), past)) end;
  more := seen.found_ >= (rule).batch or seen.taken < seen.found_;
  update retention r
     set mark_at = coalesce(seen.at, mark.at),
         mark_id = coalesce(seen.id, mark.id),
         pass_began_at = case when not more and (rule).what = 'jobs' then null      -- what is left was held: look again at once
                              when anew then clock()
                              else (rule).pass_began_at end
   where r.what = (rule).what;
end $$;

-- Of these jobs, those with something to remove: a lock is a write, too.
create or replace function leasehold.with_output(jobs bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  return array(
    select j.id
      from unnest(with_output.jobs) j (id)
     where (select true                                            -- a sub-select, so that it stays one look at an index each
              from runs r
             cross join lateral (select from output o where o.run_id = r.id limit 1) o
             where r.job_id = j.id
             limit 1));
end $$;

create or replace function leasehold.with_events(jobs bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  return array(
    select h.job_id
      from heads h
     where h.job_id = any (with_events.jobs)
       and (select true from events e where e.job_id = h.job_id and e.seq < h.seq limit 1));
end $$;

-- All output of these jobs, which the caller has locked. How much there was stays in runs.output.
create or replace function leasehold.remove_output(jobs bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  runs_ bigint[] := array(select r.id from runs r where r.job_id = any (remove_output.jobs));
  gone bigint;
begin
  delete from output o where o.run_id = any (runs_);
  get diagnostics gone = row_count;
  return gone;
end $$;

-- All events of these jobs but the last, which says how it ended; the numbers go on from there.
create or replace function leasehold.remove_events(jobs bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  head record;
  part bigint;
  gone bigint := 0;
begin
  for head in
    select h.job_id, h.seq from heads h where h.job_id = any (remove_events.jobs)
  loop
    delete from events e where e.job_id = head.job_id and e.seq < head.seq;
    get diagnostics part = row_count;
    gone := gone + part;
  end loop;
  return gone;
end $$;

-- Those of these jobs that have rows in `messages`, `artifacts` or `workspace_changes`; and all such rows of jobs that the caller has locked.
create or replace function leasehold.with_said(what text, jobs bigint[]) returns bigint[]
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  found_ bigint[];
begin
  execute format('select array(select j.id from unnest($1) j (id) where (select true from leasehold.%I t where t.job_id = j.id limit 1))', what)
     into found_
    using with_said.jobs;
  return found_;
end $$;

create or replace function leasehold.remove_said(what text, jobs bigint[]) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  gone bigint;
begin
  execute format('delete from leasehold.%I t where t.job_id = any ($1)', what) using remove_said.jobs;
  get diagnostics gone = row_count;
  return gone;
end $$;
