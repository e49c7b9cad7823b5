-- A worker's life: registered, renewed, closed. One narrow row and one lease for all its runs.

create or replace function leasehold.register_worker(
  instance text, host_id text, boot_id text, keeper_id text, version text, capacity int, queues text[], lease interval)
returns table (worker bigint, token uuid)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  if coalesce(register_worker.lease <= interval '0', true) or coalesce(register_worker.capacity < 0, true) then
    perform refuse_arguments('a worker needs a lease above 0 and a capacity of at least 0');
  end if;
  return query
  insert into workers as w (instance, host_id, boot_id, keeper_id, version, capacity, queues, lease, lease_expires_at, started_at)
  values (register_worker.instance, register_worker.host_id, register_worker.boot_id, register_worker.keeper_id,
          register_worker.version, register_worker.capacity, register_worker.queues, register_worker.lease,
          clock() + register_worker.lease, clock())
  returning w.id, w.token;
end $$;

-- Extend the lease and hear what is new, in one call whatever the number of runs: first one row 'renewed', then only exceptions.
-- 'lost': named, but not live here. 'unnamed': live here, but not named. 'cancel': somebody asked for its end.
-- 'budget': it has passed its own budget. 'input': read_inputs() has something for its agent.
create or replace function leasehold.renew(worker bigint, token uuid, runs bigint[], lease interval)
returns table (what text, run_id bigint, detail text)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  if coalesce(renew.lease <= interval '0', true) then
    perform refuse_arguments('a lease must be above 0');
  end if;
  update workers w
     set lease_expires_at = clock() + renew.lease,
         lease = renew.lease,
         renewals = w.renewals + 1
   where w.id = renew.worker
     and w.token = renew.token
     and w.state = 'alive'
     and w.lease_expires_at > clock();
  if not found then
    perform refuse_worker(renew.worker, renew.token);
  end if;
  -- the worker row is ours until commit: whoever wants to take its runs waits, and this statement sees what there is
  return query
  with own as materialized (
    select r.id, r.job_id, r.budget_passed_at, r.cost_usd
      from leasehold.runs r
     where r.worker_id = renew.worker
       and r.ended_at is null
  ), named as materialized (
    select distinct n.id
      from unnest(renew.runs) n (id)
     where n.id is not null
  )
  select 'renewed', null::bigint, (select count(*) from own)::text
  union all
  select 'lost', gone.id, null
    from (select named.id from named except select own.id from own) gone
  union all
  select 'unnamed', mine.id, null
    from (select own.id from own except select named.id from named) mine
  union all
  select 'cancel', h.run_id, j.cancel_requested_reason
    from (select k.id                                          -- from the small side: what is pending anywhere, then what of it is ours
            from jobs k
           where k.cancel_requested_at is not null
             and k.status in ('running', 'waiting')
          intersect
          select own.job_id from own) asked
   cross join lateral (select k.run_id from heads k where k.job_id = asked.id offset 0) h
   cross join lateral (select k.cancel_requested_reason from jobs k where k.id = asked.id offset 0) j
  union all
  select 'input', told.run_id, null
    from (select h.run_id
            from (select t.job_id from turns t where t.state = 'pending' and t.deliverable      -- from the small side, too
                  intersect
                  select own.job_id from own) owed
           cross join lateral (select k.run_id from heads k where k.job_id = owed.job_id offset 0) h
          union
         (select i.run_id from interactions i where i.to_deliver
          intersect
          select own.id from own)) told
  union all
  select 'budget', own.id, format('it has cost %s USD', trim_scale(own.cost_usd))
    from own
   where own.budget_passed_at is not null;
end $$;

-- Leave for good. Refused while runs are live: they must be ended, or left to an adopter by not calling this.
create or replace function leasehold.deregister_worker(worker bigint, token uuid) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  state_ text;
  live bigint;
begin
  select w.state into state_
    from workers w
   where w.id = deregister_worker.worker
     and w.token = deregister_worker.token
     for update;
  if not found then
    perform refuse_worker(worker, token);
  elsif state_ <> 'alive' then
    return;
  end if;
  select count(*) into live
    from runs r
   where r.worker_id = deregister_worker.worker
     and r.ended_at is null;
  if live > 0 then
    raise exception 'worker % still has % live run(s)', worker, live
      using errcode = 'LH015', hint = 'Finish them first, or leave without this call and let the next life adopt them.';
  end if;
  perform set_config('leasehold.actor', 'deregister', true);
  update workers w
     set state = 'closed',
         ended_at = clock(),
         lease_expires_at = least(w.lease_expires_at, clock())
   where w.id = deregister_worker.worker;
  perform set_config('leasehold.actor', '', true);
end $$;

-- How long until the next job of the worker's queues falls due, or a hold ends or lets the next start through; null if nothing lies ahead.
create or replace function leasehold.next_due(worker bigint) returns interval
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_bitmapscan = off                                    -- the first entry of the index, whatever the statistics say
set enable_sort = off
set jit = off
as $$
declare
  listens_to text[] := (select w.queues from workers w where w.id = next_due.worker);
  soonest timestamptz;
begin
  select j.run_at into soonest
    from jobs j
   where j.status = 'queued'
     and not j.due
     and (listens_to is null or j.queue = any (listens_to))
   order by j.run_at
   limit 1;
  soonest := least(soonest, holds_change(next_due.worker));
  return case when soonest is not null then greatest(soonest - clock(), interval '0') end;
end $$;

-- The workers to keep an eye on. A reaper notes when it first saw each number of renewals, on its own steady clock, and may
-- name to reap() those that are expired and have stood still for a whole lease.
create or replace function leasehold.watch_workers()
returns table (worker bigint, renewals bigint, lease interval, expired boolean)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select w.id, w.renewals, w.lease, w.lease_expires_at <= clock()
    from workers w
   where w.state = 'alive'
   order by w.id;
end $$;

-- The gate of everything a worker does on its lease. Key share: renewals pass, whoever wants to close the worker waits.
create or replace function leasehold.hold_worker(worker bigint, token uuid) returns leasehold.workers
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  held workers;
begin
  select w.* into held
    from workers w
   where w.id = hold_worker.worker
     and w.token = hold_worker.token
     and w.state = 'alive'
     and w.lease_expires_at > clock()
     for key share;
  if not found then
    perform refuse_worker(worker, token);
  end if;
  return held;
end $$;

-- For writes that are fenced by their run: the caller must be a worker of ours, in whatever state.
create or replace function leasehold.know_worker(worker bigint, token uuid) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if not exists (select from workers w where w.id = know_worker.worker and w.token = know_worker.token) then
    perform refuse_worker(worker, token);
  end if;
end $$;

create or replace function leasehold.refuse_worker(worker bigint, token uuid) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known workers;
begin
  select w.* into known from workers w where w.id = refuse_worker.worker;
  raise exception '%', case
      when known.id is null then format('there is no worker %s', coalesce(worker::text, 'NULL'))
      when known.token is distinct from refuse_worker.token then format('worker %s has another token', worker)
      when known.state <> 'alive' then format('worker %s is %s', worker, known.state)
      else format('the lease of worker %s has run out', worker)
    end
    using errcode = 'LH012', hint = 'It may change nothing any more: stop its agents, register a new worker and adopt.';
end $$;

create or replace function leasehold.refuse_arguments(mistake text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception '%', mistake
    using errcode = 'LH016', hint = 'This is a mistake of the calling program; sql/README.md describes the functions.';
end $$;
