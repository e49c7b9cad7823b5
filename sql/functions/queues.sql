-- A queue at a glance, as one JSON document of one moment and one snapshot: how much of what, and what comes next. Counts are made
-- where the rows are; no prompt or payload is read.

-- All of it, or one queue, of the tenants the caller may see. `cursor` is where changes() goes on from here.
create or replace function leasehold.queue_summary(queue text default null) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return queue_counts(nullif(btrim(queue_summary.queue), ''), tenants_seen(), clock());
end $$;

-- The same with the `top`: live runs, oldest first, then what is due in the order of the claim within a lane, then what lies ahead or
-- is deferred. What has ended is never among them.
create or replace function leasehold.queue_top(queue text default null, n int default 20) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  now_ timestamptz := clock();
  name_ text := nullif(btrim(queue_top.queue), '');
  seen text[] := tenants_seen();
  front bigint[] := queue_front(name_, seen, page_size(n, 20, 100));
begin
  return jsonb_build_object(
    'generated_at', now_,
    'queue', name_,
    'stats', queue_counts(name_, seen, now_) - 'generated_at' - 'queue',
    'top', (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
              'id', j.id, 'tenant', j.tenant, 'queue', j.queue, 'agent', j.agent, 'status', j.status, 'thread', j.thread,
              'priority', j.priority, 'title', left(j.title, 200), 'created_at', j.created_at, 'run_at', j.run_at, 'started_at', j.started_at,
              'waits_seconds', case when j.status = 'queued' then greatest(extract(epoch from now_ - j.run_at), 0) end)) order by f.place), '[]')
              from unnest(front) with ordinality f (id, place)
             cross join lateral (select k.* from jobs k where k.id = f.id offset 0) j));
end $$;

create or replace function leasehold.queue_counts(queue text, seen text[], moment timestamptz) returns jsonb
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  answer jsonb;
begin
  with lane as materialized (
    select j.tenant, j.queue, j.agent, case when j.status = 'queued' and j.run_at > moment then 'ahead' else j.status end as state,
           j.finished_at is null as live, count(*) as many,
           min(j.run_at) filter (where j.status = 'queued' and j.run_at <= moment) as oldest
      from jobs j
     where (j.finished_at is null or j.finished_at > moment - interval '1 hour')
       and (queue_counts.queue is null or j.queue = queue_counts.queue)
       and (seen is null or j.tenant = any (seen))
     group by 1, 2, 3, 4, 5
  ), by_lane as (
    select l.tenant, l.queue, l.agent, sum(l.many) filter (where l.live) as total, jsonb_object_agg(l.state, l.many) as by_state,
           min(l.oldest) as oldest
      from lane l
     group by 1, 2, 3
  )
  select jsonb_build_object(
    'generated_at', moment,
    'queue', queue_counts.queue,
    'total', coalesce((select sum(l.many) from lane l where l.live), 0),
    'by_state', coalesce((select jsonb_object_agg(s.state, s.many)
                            from (select l.state, sum(l.many) as many from lane l group by l.state) s), '{}'),
    'by_lane', coalesce((select jsonb_agg(jsonb_build_object(
                           'tenant', b.tenant, 'queue', b.queue, 'agent', b.agent, 'total', coalesce(b.total, 0), 'by_state', b.by_state,
                           'oldest_waits_seconds', extract(epoch from moment - b.oldest)) order by b.tenant, b.queue, b.agent)
                           from by_lane b), '[]'),
    'oldest_waits_seconds', (select extract(epoch from moment - min(l.oldest)) from lane l),
    'cursor', cursor_epoch() || '-' || pg_snapshot_xmin(pg_current_snapshot()) || '-0-0') into answer;
  return answer;
end $$;

-- The ids of the top, each kind only while there is room. Due jobs are read from the front of each lane, never the whole backlog.
create or replace function leasehold.queue_front(queue text, seen text[], n int) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
declare
  front bigint[];
begin
  front := array(
    select r.job_id
      from runs r
     where r.ended_at is null
       and (queue_front.queue is null or r.queue = queue_front.queue)
       and (seen is null or r.tenant = any (seen))
     order by r.claimed_at, r.id
     limit n);
  front := front || array(
    with recursive due as (
      (select j.lane, j.queue, j.tenant from jobs j where j.status = 'queued' and j.due order by j.lane limit 1)
      union all
      select next_.* from due d
       cross join lateral (select j.lane, j.queue, j.tenant
                             from jobs j
                            where j.status = 'queued' and j.due and j.lane > d.lane
                            order by j.lane limit 1) next_
    )
    select first_.id
      from due d
     cross join lateral (select j.id, j.rank
                           from jobs j
                          where j.lane = d.lane and j.status = 'queued' and j.due
                          order by j.rank, j.id
                          limit n - cardinality(front)) first_
     where (queue_front.queue is null or d.queue = queue_front.queue)
       and (seen is null or d.tenant = any (seen))
     order by first_.rank, first_.id
     limit n - cardinality(front));
  if cardinality(front) < n then
    front := front || array(
      select j.id
        from jobs j
       where j.finished_at is null
         and (j.status = 'deferred' or (j.status = 'queued' and not j.due))
         and (queue_front.queue is null or j.queue = queue_front.queue)
         and (seen is null or j.tenant = any (seen))
       order by j.status = 'deferred', j.run_at, j.id
       limit n - cardinality(front));
  end if;
  return front;
end $$;
