-- Concurrency keys: at most one job of a key is live (queued, running, waiting), the others are deferred.
--
-- Whoever makes a key live out of nothing holds its advisory lock until commit: an insert, a retry, the claim's promote().
-- They try and never wait, because a producer may sit in its transaction for hours. The transaction that ends the live job
-- hands the key on without the lock: until its commit the key is its own.

create or replace function leasehold.key_lock(tenant text, key text) returns bigint
language sql immutable
set search_path = pg_catalog
as $$
  select hashtextextended(tenant || e'\x1f' || key, 1)
$$;

-- May a job of this key be born queued? Two questions, so that each finds its own partial index.
create or replace function leasehold.key_is_free(tenant text, key text) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed'         -- an old snapshot proves nothing
     or not pg_try_advisory_xact_lock(key_lock(key_is_free.tenant, key_is_free.key)) then
    return false;
  end if;
  return not exists (select from jobs j                                   -- a statement of its own: it sees what the last holder did
                      where j.tenant = key_is_free.tenant
                        and j.concurrency_key = key_is_free.key
                        and j.status in ('queued', 'running', 'waiting'))
     and not exists (select from jobs j
                      where j.tenant = key_is_free.tenant
                        and j.concurrency_key = key_is_free.key
                        and j.status = 'deferred');
end $$;

-- Called by the claim for keys that arrived: make the next deferred job live, if the key is free.
create or replace function leasehold.promote(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if not pg_try_advisory_xact_lock(key_lock(promote.tenant, promote.key)) then
    insert into arrivals (tenant, key) values (promote.tenant, promote.key);      -- a producer is at it: look again
  elsif not exists (select from jobs j
                     where j.tenant = promote.tenant
                       and j.concurrency_key = promote.key
                       and j.status in ('queued', 'running', 'waiting')) then
    perform promote_next(promote.tenant, promote.key);
  end if;
end $$;

-- The unguarded half, for the transaction that has just ended the key's live job.
create or replace function leasehold.promote_next(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  next_up record;
begin
  perform set_config('leasehold.actor', 'promote', true);
  update jobs j
     set status = 'queued',
         due = j.run_at <= clock(),
         updated_at = clock()
   where j.id = (select d.id
                   from jobs d
                  where d.tenant = promote_next.tenant
                    and d.concurrency_key = promote_next.key
                    and d.status = 'deferred'
                  order by d.priority desc, d.run_at, d.id
                  limit 1
                    for update skip locked)
  returning j.id, j.tenant, j.queue, j.agent, j.lane into next_up;
  perform set_config('leasehold.actor', '', true);
  if next_up.id is not null then
    perform note(next_up.id, next_up.tenant, null, 'promoted', format('the key "%s" is free', promote_next.key));
    insert into arrivals (lane, queue, tenant, agent)
    values (next_up.lane, next_up.queue, next_up.tenant, next_up.agent);
  elsif current_setting('transaction_isolation') <> 'read committed'
     or exists (select from jobs d
                 where d.tenant = promote_next.tenant
                   and d.concurrency_key = promote_next.key
                   and d.status = 'deferred') then
    -- somebody holds the row (an open cancel), or our snapshot is too old to see it: the next claim looks again
    insert into arrivals (tenant, key) values (promote_next.tenant, promote_next.key);
  end if;
end $$;
