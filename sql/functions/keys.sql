-- Concurrency keys: at most one job of a key is live (queued, running, waiting), the others are deferred. Jobs with the conflict
-- policy 'allow' take no part: they neither hold a key nor wait for one.
--
-- Whoever makes a key live out of nothing holds its advisory lock until commit: an insert, a retry, the claim's promote().
-- They try and never wait, because a producer may sit in its transaction for hours. The transaction that ends the live job
-- hands the key on without the lock: until its commit the key is its own.
--
-- `enable_sort = off` where several indexes begin with the tenant: only the one that was made for the question gives its order.

create or replace function leasehold.key_lock(tenant text, key text) returns bigint
language sql immutable
set search_path = pg_catalog
as $$
  select hashtextextended(tenant || e'\x1f' || key, 1)
$$;

-- May a job of this key be born queued? What cannot be decided counts as taken.
create or replace function leasehold.key_is_free(tenant text, key text) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed'         -- an old snapshot proves nothing
     or not pg_try_advisory_xact_lock(key_lock(key_is_free.tenant, key_is_free.key)) then
    return false;
  end if;
  return holder_of(key_is_free.tenant, key_is_free.key) is null;          -- a statement of its own: it sees what the last holder did
end $$;

-- The job that keeps others from the key: the live one, else the first that waits. Two questions, so that each finds its own index.
create or replace function leasehold.holder_of(tenant text, key text) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
begin
  return coalesce(
    live_of(holder_of.tenant, holder_of.key),
    (select j.id
       from jobs j
      where j.tenant = holder_of.tenant
        and j.concurrency_key = holder_of.key
        and j.status = 'deferred'
      order by j.priority desc, j.run_at, j.id
      limit 1));
end $$;

create or replace function leasehold.live_of(tenant text, key text) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select j.id
            from jobs j
           where j.tenant = live_of.tenant
             and j.concurrency_key = live_of.key
             and j.conflict_policy <> 'allow'
             and j.status in ('queued', 'running', 'waiting'));
end $$;

-- A new job found its key taken, and does not want to wait behind it: say so. What enqueue() and wake() have decided to put behind
-- the key passes, and so does a request that is there already: the unique index on it answers better.
create or replace function leasehold.refuse_taken(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  holder bigint;
begin
  if job.conflict_policy = 'coalesce' and current_setting('leasehold.behind', true) = 'yes' then
    return;
  elsif job.idempotency_key is not null then
    if exists (select from jobs j where j.tenant = job.tenant and j.idempotency_key = job.idempotency_key) then
      return;
    end if;
  end if;
  holder := holder_of(job.tenant, job.concurrency_key);
  if job.conflict_policy = 'reject' then
    raise exception 'the key "%" is taken', job.concurrency_key
      using errcode = 'LH060', column = 'concurrency_key', detail = coalesce(format('job_id=%s', holder), 'it is being taken at this moment'),
            hint = 'Its job must end first. With conflict_policy ''defer'' the new one waits for that.';
  end if;
  raise exception 'the key "%" is taken, and an INSERT cannot answer with the job that has it', job.concurrency_key
    using errcode = 'LH061', column = 'concurrency_key', detail = coalesce(format('job_id=%s', holder), 'it is being taken at this moment'),
          hint = 'Use SELECT * FROM leasehold.enqueue(...) or leasehold.wake(...), which can.';
end $$;

-- Called by the claim for keys that arrived: make the next deferred job live, if the key is free; else bring together what can be.
create or replace function leasehold.promote(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if not pg_try_advisory_xact_lock(key_lock(promote.tenant, promote.key)) then
    perform look_again(promote.tenant, promote.key);                -- a producer is at it, and rings when it commits
  elsif exists (select from jobs j
                 where j.tenant = promote.tenant
                   and j.concurrency_key = promote.key
                   and j.conflict_policy <> 'allow'
                   and j.status in ('queued', 'running', 'waiting')) then
    perform gather(promote.tenant, promote.key);
  else
    perform promote_next(promote.tenant, promote.key);
  end if;
end $$;

-- The unguarded half, for the transaction that has just ended the key's live job.
create or replace function leasehold.promote_next(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  next_up jobs;
  agent_status text;
  unwanted text;
begin
  for turn in 1..100 loop
    next_up := next_of_key(promote_next.tenant, promote_next.key);
    exit when next_up.id is null;
    agent_status := (select a.status from agents a where a.name = next_up.agent);
    if agent_status = 'retired' or agent_status is null then
      perform end_unpromoted(next_up, 'failed', 'agent_retired', format('agent "%s" was retired before its turn came', next_up.agent));
      perform reject_wakeups(next_up.id, 'failed');
      continue;
    end if;
    unwanted := switched_off(next_up);
    if unwanted is not null then
      perform end_unpromoted(next_up, 'cancelled', 'cancelled',
                             format('%s of agent "%s" was switched off before its turn came', unwanted, next_up.agent));
      perform skip_wakeups(next_up.id, unwanted);
    else
      perform make_live(next_up);
      return;
    end if;
  end loop;
  if current_setting('transaction_isolation') <> 'read committed'
     or exists (select from jobs d
                 where d.tenant = promote_next.tenant
                   and d.concurrency_key = promote_next.key
                   and d.status = 'deferred') then
    -- somebody holds the row (an open cancel), or our snapshot is too old to see it: the next claim looks again
    perform look_again(promote_next.tenant, promote_next.key);
  end if;
end $$;

-- A note to the next claim that rings for nobody: as long as the obstacle is there, each claim would ring for the next one.
create or replace function leasehold.look_again(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  rung text := coalesce(current_setting('leasehold.rung', true), '');
begin
  perform set_config('leasehold.rung', 'yes', true);
  insert into arrivals (tenant, key) values (look_again.tenant, look_again.key);
  perform set_config('leasehold.rung', rung, true);
end $$;

-- Locks and answers who comes next: the first whose agent is enabled, else the first (a paused agent's waits as queued, then).
create or replace function leasehold.next_of_key(tenant text, key text) returns leasehold.jobs
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
declare
  found_ jobs;
begin
  select d.* into found_
    from jobs d
   where d.tenant = next_of_key.tenant
     and d.concurrency_key = next_of_key.key
     and d.status = 'deferred'
     and (select a.status from agents a where a.name = d.agent) = 'enabled'
   order by d.priority desc, d.run_at, d.id
   limit 1
     for update of d skip locked;
  if not found then
    select d.* into found_
      from jobs d
     where d.tenant = next_of_key.tenant
       and d.concurrency_key = next_of_key.key
       and d.status = 'deferred'
     order by d.priority desc, d.run_at, d.id
     limit 1
       for update skip locked;
  end if;
  return found_;
end $$;

create or replace function leasehold.make_live(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform set_config('leasehold.actor', 'promote', true);
  update jobs j
     set status = 'queued',
         due = j.run_at <= clock(),
         updated_at = clock()
   where j.id = job.id
  returning j.* into job;
  perform set_config('leasehold.actor', '', true);
  perform note(job.id, job.tenant, null, 'promoted', format('the key "%s" is free', job.concurrency_key));
  perform decide_wakeups(job.id);
  insert into arrivals (lane, queue, tenant, agent, repository) values (job.lane, job.queue, job.tenant, job.agent, job.repository);
end $$;

-- Nobody may be asked any more to do what has waited, or nobody wants it: it ends, visibly, and the next one comes.
create or replace function leasehold.end_unpromoted(job leasehold.jobs, status text, reason text, message text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform set_config('leasehold.actor', 'promote', true);
  update jobs j
     set status = end_unpromoted.status,
         reason = end_unpromoted.reason,
         message = end_unpromoted.message,
         finished_at = clock(),
         updated_at = clock()
   where j.id = job.id;
  perform set_config('leasehold.actor', '', true);
  perform note(job.id, job.tenant, null, status, message, jsonb_build_object('reason', reason),
               case status when 'failed' then 'error' else 'warning' end);
end $$;
