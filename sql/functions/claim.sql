-- Give a worker as many due jobs as it has free slots, opening one run for each. Returns ids only; read_runs() has the bodies.
--
-- Claims come one after the other, under an advisory lock taken in a statement of its own, so that counting live runs is exact:
-- later statements see what earlier claims have committed. Fair between tenants, and between the lanes of each, by virtual time (lanes.sql,
-- choose.sql); by rank, id inside a lane. Nothing scans the backlog, and the settings below keep every step on an index whatever the
-- statistics say. Only what is taken is locked, with skip locked: an open transaction of a user on a job never blocks the claim.
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
  depth int := 1;
  staggered boolean;
  notes text[];
  avoid text[] := '{}';
  woken record;
  chosen record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'claim needs read committed'
      using errcode = 'LH020', hint = 'Each of its statements must see what was committed before it.';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('leasehold.claim', 0));
  held := hold_worker(claim.worker, claim.token);
  if coalesce(room, 0) <= 0 or not claims_are_open() then
    return;
  end if;
  perform sweep_holds();
  room := free_on_host(held.host_id, room);
  if room <= 0 then
    return;
  end if;
  staggered := exists (select from holds h where h.until <= clock());         -- one at a time then, so that each start is counted
  notes := admit_arrivals() || case when staggered then standing_notes() end;
  perform admit_due();
  for turn in 1..10000 loop
    woken := unpark(notes);
    notes := woken.more;
    chosen := choose(case when staggered then 1 else least(room, 64) end, held.queues, depth, avoid);
    avoid := chosen.avoid;
    exit when chosen.jobs is null and not chosen.moved and woken.woken = 0;
    depth := least(depth * 2, 64);                             -- places are left, so some of what was seen was empty or stopped: look further
    if chosen.jobs is not null then
      room := room - cardinality(chosen.jobs);
      return query select * from open_runs(held.id, chosen.jobs);
      if staggered then
        perform count_released(chosen.jobs, held.host_id);
        room := free_on_host(held.host_id, room);
      end if;
      exit when room <= 0;
    end if;
  end loop;
  perform keep_notes(notes);
end $$;

-- One run for each of these jobs, which the caller has locked.
create or replace function leasehold.open_runs(worker bigint, jobs bigint[])
returns table (run_id bigint, run_token uuid, job_id bigint, attempt int)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  host text := (select w.host_id from workers w where w.id = open_runs.worker);
begin
  perform absorb_last(open_runs.jobs);
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
    returning j.id, j.tenant, j.queue, j.agent, j.repository, j.attempts + j.interruptions + 1 as attempt
  ), opened as (
    insert into runs as r (job_id, attempt, worker_id, host_id, tenant, queue, agent, repository, claimed_at)
    select s.id, s.attempt, open_runs.worker, host, s.tenant, s.queue, s.agent, s.repository, clock()
      from started s
    returning r.id, r.token, r.job_id, r.attempt, r.tenant, r.session_elsewhere
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
           || case when o.session_elsewhere is null then '{}' else jsonb_build_object('session_elsewhere', o.session_elsewhere) end
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
