-- Give a worker as many due jobs as it has free slots, opening one run for each. Returns ids only; read_runs() has the bodies.
--
-- Claims come one after the other, under an advisory lock taken in a statement of its own, so that counting live runs is exact:
-- later statements see what earlier claims have committed. Fair between lanes by virtual time; priority desc, run_at, id
-- inside a lane. Nothing scans the backlog, and the settings below keep every step on an index whatever the statistics say.
-- Only the final picks are locked, with skip locked: an open transaction of a user on a job never blocks the claim.
create or replace function leasehold.claim(worker bigint, token uuid, slots int)
returns table (run_id bigint, run_token uuid, job_id bigint, attempt int)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  held workers;
  room int := least(claim.slots, 1000);
  staggered boolean;
  chosen record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'claim needs read committed'
      using errcode = 'LH020', hint = 'Each of its statements must see what was committed before it.';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('leasehold.claim', 0));
  held := hold_worker(claim.worker, claim.token);
  if coalesce(room, 0) <= 0 or not claims_are_open() or exists (select from holds_on(null, null, null, null, held.host_id)) then
    return;
  end if;
  perform admit_arrivals();
  perform admit_due();
  perform sweep_holds();
  staggered := exists (select from holds h where h.until <= clock());         -- one at a time then, so that each start is counted
  loop
    exit when staggered and exists (select from holds_on(null, null, null, null, held.host_id));
    chosen := choose(case when staggered then 1 else room end, held.queues);
    if chosen.jobs is not null then
      room := room - cardinality(chosen.jobs);
      if staggered then
        perform count_released(chosen.jobs, held.host_id);
      end if;
      return query select * from open_runs(held.id, chosen.jobs);
    end if;
    exit when room <= 0 or chosen.emptied = 0 and (chosen.jobs is null or not staggered);      -- emptied lanes made room for others to be looked at
  end loop;
end $$;

-- Hear the notes of producers: new and woken lanes, keys that may be free.
create or replace function leasehold.admit_arrivals() returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  start_ double precision;
  waiting record;
begin
  if not exists (select from arrivals) then
    return;
  end if;
  start_ := newcomers_pass();
  for waiting in
    with drained as (
      delete from arrivals a
       where a.id in (select b.id from arrivals b order by b.id limit 5000)
      returning a.lane, a.queue, a.tenant, a.agent, a.key
    ), woken as (
      insert into lanes as l (lane, queue, tenant, agent, pass)
      select distinct d.lane, d.queue, d.tenant, d.agent, start_
        from drained d
       where d.lane is not null
          on conflict (lane) do update
         set active = true,
             pass = greatest(l.pass, start_)
       where not l.active
    )
    select distinct d.tenant, d.key
      from drained d
     where d.key is not null
  loop
    perform promote(waiting.tenant, waiting.key);
  end loop;
end $$;

-- Jobs whose time has come.
create or replace function leasehold.admit_due() returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  start_ double precision;
begin
  if not exists (select from jobs j where j.status = 'queued' and not j.due and j.run_at <= clock()) then
    return;
  end if;
  start_ := newcomers_pass();
  with come as (
    update jobs j
       set due = true
     where j.id in (select i.id
                      from jobs i
                     where i.status = 'queued'
                       and not i.due
                       and i.run_at <= clock()
                     order by i.run_at
                     limit 1000
                       for update skip locked)
    returning j.lane, j.queue, j.tenant, j.agent
  )
  insert into lanes as l (lane, queue, tenant, agent, pass)
  select distinct c.lane, c.queue, c.tenant, c.agent, start_
    from come c
      on conflict (lane) do update
     set active = true,
         pass = greatest(l.pass, start_)
   where not l.active;
end $$;

-- A newcomer, and one who comes back, goes before the ties of this round, once: nothing is gained by coming often.
create or replace function leasehold.newcomers_pass() returns double precision
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((select ceil(min(l.pass)) from lanes l where l.active),
                  (select max(l.pass) from lanes l),
                  0) - 0.5;
end $$;

-- What is left of each limit, as {"name": free}, for names that have live runs. Looked up row by row: CTEs have no statistics.
create or replace function leasehold.free_of_limits(out agents jsonb, out tenants jsonb, out queues jsonb)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  select jsonb_object_agg(a.name, a.max_running - live.n) into free_of_limits.agents
    from (select r.agent, count(*) as n from runs r where r.ended_at is null group by r.agent) live
   cross join lateral (select k.name, k.max_running from leasehold.agents k
                        where k.name = live.agent and k.max_running is not null offset 0) a;
  select jsonb_object_agg(t.name, t.max_running - live.n) into free_of_limits.tenants
    from (select r.tenant, count(*) as n from runs r where r.ended_at is null group by r.tenant) live
   cross join lateral (select k.name, k.max_running from leasehold.tenants k
                        where k.name = live.tenant and k.max_running is not null offset 0) t;
  select jsonb_object_agg(q.name, q.max_running - live.n) into free_of_limits.queues
    from (select r.queue, count(*) as n from runs r where r.ended_at is null group by r.queue) live
   cross join lateral (select k.name, k.max_running from leasehold.queues k
                        where k.name = live.queue and k.max_running is not null offset 0) q;
end $$;

-- Pick and lock up to `room` jobs: the next lanes by virtual time, the first jobs of each, cut by what is left of the limits.
create or replace function leasehold.choose(room int, listens_to text[], out jobs bigint[], out emptied bigint)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  free record;
  held boolean := exists (select from holds);
begin
  select f.agents, f.tenants, f.queues into free from free_of_limits() f;
  with open_lanes as materialized (
    select * from (
      select l.lane, l.pass, l.agent, l.tenant, l.queue, coalesce(t.weight, 1) as weight,
             coalesce((free.agents ->> l.agent)::int, a.max_running, room) as agent_free,
             coalesce((free.tenants ->> l.tenant)::int, t.max_running, room) as tenant_free,
             coalesce((free.queues ->> l.queue)::int, q.max_running, room) as queue_free
        from lanes l                                     -- lateral with offset 0 is always an index probe
       cross join lateral (select k.max_running from agents k where k.name = l.agent and k.status = 'enabled' offset 0) a
        left join lateral (select k.paused, k.weight, k.max_running from tenants k where k.name = l.tenant offset 0) t on true
        left join lateral (select k.paused, k.max_running from queues k where k.name = l.queue offset 0) q on true
       where l.active
         and (listens_to is null or l.queue = any (listens_to))
         and not coalesce(t.paused, false)
         and not coalesce(q.paused, false)
         and (not held or not exists (select from holds_on(l.tenant, l.queue, l.agent, null)))) each_lane
     where least(each_lane.agent_free, each_lane.tenant_free, each_lane.queue_free) > 0
     order by each_lane.pass, each_lane.lane
     limit room
  ), front as materialized (
    select l.*, j.id, j.place, l.pass + j.place::float8 / l.weight as turn
      from open_lanes l
      left join lateral (
        select f.id, row_number() over () as place
          from (select k.id
                  from leasehold.jobs k
                 where k.lane = l.lane
                   and k.status = 'queued'
                   and k.due
                 order by k.priority desc, k.run_at, k.id
                 limit room) f) j on true
  ), closed as (
    update lanes l                                           -- any (array): an index condition, however few rows are thought to be there
       set active = false
     where l.lane = any (array(select f.lane from front f where f.id is null))
    returning l.lane
  ), allowed as (
    select f.id, f.lane, f.weight, f.turn,
           row_number() over (partition by f.agent order by f.turn, f.lane) <= f.agent_free as agent_ok,
           row_number() over (partition by f.tenant order by f.turn, f.lane) <= f.tenant_free as tenant_ok,
           row_number() over (partition by f.queue order by f.turn, f.lane) <= f.queue_free as queue_ok
      from front f
     where f.id is not null
  ), taken as (
    select a.id, a.lane, a.weight
      from allowed a
     where a.agent_ok and a.tenant_ok and a.queue_ok
     order by a.turn, a.lane
     limit room
  ), locked as materialized (
    select k.id, k.lane
      from leasehold.jobs k
     where k.id = any (array(select t.id from taken t))
       and k.status = 'queued'
       for update skip locked
  ), charged as (
    update lanes l
       set pass = l.pass + c.n::float8 / c.weight
      from (select t.lane, t.weight, count(*) as n from taken t join locked using (id) group by t.lane, t.weight) c
     where l.lane = c.lane
       and l.lane = any (array(select t.lane from taken t))
  )
  select array_agg(k.id order by k.id), (select count(*) from closed) into choose.jobs, choose.emptied
    from locked k;
end $$;

-- One run for each of these jobs, which the caller has locked.
create or replace function leasehold.open_runs(worker bigint, jobs bigint[])
returns table (run_id bigint, run_token uuid, job_id bigint, attempt int)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  perform from heads h where h.job_id = any (open_runs.jobs) order by h.job_id for update;      -- ascending, as everywhere
  perform set_config('leasehold.actor', 'claim', true);
  return query
  with started as (
    update leasehold.jobs j
       set status = 'running',
           reason = null,
           message = null,
           started_at = coalesce(j.started_at, clock()),
           updated_at = clock()
     where j.id = any (open_runs.jobs)
    returning j.id, j.tenant, j.queue, j.agent, j.attempts + j.interruptions + 1 as attempt
  ), opened as (
    insert into runs as r (job_id, attempt, worker_id, tenant, queue, agent, claimed_at)
    select s.id, s.attempt, open_runs.worker, s.tenant, s.queue, s.agent, clock()
      from started s
    returning r.id, r.token, r.job_id, r.attempt, r.tenant
  ), headed as (
    update heads h
       set seq = h.seq + 1,
           run_id = o.id,
           run_token = o.token,
           mark = -1
      from opened o
     where h.job_id = o.job_id
       and h.job_id = any (open_runs.jobs)
    returning h.job_id, h.seq
  ), told as (
    insert into events (job_id, seq, run_id, tenant, kind, data)
    select o.job_id, h.seq, o.id, o.tenant, 'started', jsonb_build_object('attempt', o.attempt, 'worker', open_runs.worker)
      from opened o
      join headed h using (job_id)
  )
  select o.id, o.token, o.job_id, o.attempt
    from opened o;
  perform set_config('leasehold.actor', '', true);
end $$;

-- After a failover the new primary may not know the last claims: nothing is given away for one lease.
-- Whoever notices first, claim or reap, notes it in the one row.
create or replace function leasehold.claims_are_open() returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  now_on text := left(pg_walfile_name(pg_current_wal_lsn()), 8);
  known cluster;
begin
  select c.* into strict known from cluster c;
  if known.timeline <> now_on then
    update cluster c
       set timeline = now_on,
           closed_until = clock() + coalesce((select max(w.lease) from workers w where w.state = 'alive'), interval '2 minutes')
     where c.timeline <> now_on;
    return false;
  end if;
  return known.closed_until <= clock();
end $$;
