-- Who goes first in a lane: the lowest rank, then the lowest id. Without ageing a higher priority always goes before a lower one; with
-- `queues.ageing` a point of priority is worth so much waiting, so that nothing waits for ever.

-- Priority 0 is run_at itself, whatever the ageing: what was ranked before a change of it is not left behind.
create or replace function leasehold.rank_of(run_at timestamptz, priority int, queue text) returns timestamptz
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  point double precision := least(coalesce((select extract(epoch from q.ageing) from queues q where q.name = rank_of.queue), 1e9), 1e8);
begin
  return greatest(run_at, to_timestamp(0)) - make_interval(secs => priority * point);      -- 1e8 seconds are three years
end $$;

create or replace function leasehold.jobs_rank() returns trigger
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  new.rank := rank_of(new.run_at, new.priority, new.queue);
  return new;
end $$;

-- What waits in a queue whose ageing has changed is ranked anew.
create or replace function leasehold.queues_rank() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform set_config('leasehold.actor', '', true);
  update jobs j
     set rank = rank_of(j.run_at, j.priority, j.queue)
   where j.id in (select k.id
                    from jobs k
                   where k.queue = coalesce(new.name, old.name)
                     and k.status in ('queued', 'deferred')
                     and k.priority <> 0
                   order by k.id
                     for update);
  return null;
end $$;
