-- What a batch of each rule of `retention` is that is not about jobs: lives of daemons, removals, asks, usage, threads. Sessions: storage.sql.

-- Lives that are over and that no run names: a run is claimed before its worker ends, so whoever ended before the oldest run there is
-- was claimed has none. A day to spare, because clocks step.
create or replace function leasehold.sweep_workers(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  oldest timestamptz := (select r.claimed_at from runs r order by r.id limit 1);
  gone bigint;
begin
  delete from leasehold.workers w
   where w.id = any (array(select k.id
                             from leasehold.workers k
                            where k.ended_at < least(clock() - (rule).keep, oldest - interval '1 day')
                            order by k.ended_at
                            limit (rule).batch
                              for update skip locked));
  get diagnostics gone = row_count;
  return gone;
end $$;

-- Removals that are done; and those of a host of which nobody has heard since: should it come back, its orphans are found again.
create or replace function leasehold.sweep_removals(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  past timestamptz := clock() - (rule).keep;
  gone bigint;
  more bigint;
begin
  delete from leasehold.removals m
   where m.id = any (array(select k.id
                             from leasehold.removals k
                            where k.done_at < past
                            order by k.done_at
                            limit (rule).batch
                              for update skip locked));
  get diagnostics gone = row_count;
  delete from leasehold.removals m
   where m.id = any (array(select k.id
                             from leasehold.removals k
                            where k.done_at is null
                              and k.wanted_at < past
                            order by k.wanted_at
                            limit (rule).batch
                              for update skip locked))
     and not coalesce((select w.ended_at is null or w.ended_at > m.wanted_at
                         from workers w
                        where w.keeper_id = m.keeper_id
                          and w.host_id = m.host_id
                        order by w.keeper_id desc, w.id desc
                        limit 1), false);
  get diagnostics more = row_count;
  return gone + more;
end $$;

-- Asks that came to nothing: skipped or rejected. A schedule remembers its last one; it may forget it.
create or replace function leasehold.sweep_wakeups(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  past bigint[] := array(select k.id
                           from leasehold.wakeups k
                          where k.job_id is null
                            and k.at < clock() - (rule).keep
                            and k.decided_at is not null
                          order by k.at
                          limit (rule).batch
                            for update skip locked);
begin
  update leasehold.schedules s set last_wakeup = null where s.last_wakeup = any (past);
  delete from leasehold.wakeups w where w.id = any (past);
  return cardinality(past);
end $$;

-- Sums of days: what was added since is folded into one row for each; those older than the rule keeps them go. One sweep at a time, so
-- nobody else touches a folded row.
create or replace function leasehold.sweep_usage(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  gone bigint;
begin
  with taken as (
    delete from usage_days d
     where d.id = any (array(select n.id from usage_days n where not n.folded order by n.id limit 1000 for update skip locked))
    returning d.*
  )
  insert into usage_days as d (folded, day, tenant, agent, account, provider, model, runs, input_tokens, output_tokens, cached_tokens,
                               cost_usd, unpriced)
  select true, t.day, t.tenant, t.agent, t.account, t.provider, t.model, sum(t.runs), sum(t.input_tokens), sum(t.output_tokens),
         sum(t.cached_tokens), sum(t.cost_usd), sum(t.unpriced)
    from taken t
   group by t.day, t.tenant, t.agent, t.account, t.provider, t.model
      on conflict (tenant, agent, account, provider, model, day) where folded do update
     set runs = d.runs + excluded.runs,
         input_tokens = d.input_tokens + excluded.input_tokens,
         output_tokens = d.output_tokens + excluded.output_tokens,
         cached_tokens = d.cached_tokens + excluded.cached_tokens,
         cost_usd = case when excluded.cost_usd is null then d.cost_usd else coalesce(d.cost_usd, 0) + excluded.cost_usd end,
         unpriced = d.unpriced + excluded.unpriced;
  delete from usage_days d
   where d.id = any (array(select o.id
                             from usage_days o
                            where o.day < (clock() - (rule).keep)::date
                            order by o.day
                            limit (rule).batch
                              for update skip locked));
  get diagnostics gone = row_count;
  return gone;
end $$;

-- Threads at rest of which no job is left, with what their readers have read. A job that comes later begins the thread anew.
create or replace function leasehold.sweep_threads(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  past timestamptz := clock() - (rule).keep;
  anew boolean := coalesce((rule).pass_began_at < clock() - interval '1 day', true);      -- jobs may be kept longer: not every minute
  seen int := 0;
  one threads;
  gone bigint := 0;
begin
  for one in
    select t.*
      from threads t
     where not t.active
       and t.last_activity_at < past
       and (anew or (t.last_activity_at, t.version) > ((rule).mark_at, (rule).mark_id))
     order by t.last_activity_at, t.version
     limit (rule).batch
       for update skip locked
  loop
    seen := seen + 1;
    rule.mark_at := one.last_activity_at;
    rule.mark_id := one.version;
    continue when exists (select from jobs j where j.tenant = one.tenant and j.thread = one.thread);
    delete from read_cursors c where c.tenant = one.tenant and c.thread = one.thread;
    delete from threads t where t.tenant = one.tenant and t.thread = one.thread;
    gone := gone + 1;
  end loop;
  update retention r
     set mark_at = rule.mark_at,
         mark_id = rule.mark_id,
         pass_began_at = case when anew then clock() else r.pass_began_at end
   where r.what = rule.what
     and seen > 0;
  return gone;
end $$;
