-- The part of why() about a job that has not started: everything that keeps it from being claimed.

create or replace function leasehold.why_queued(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  found_any boolean := false;
  line text;
begin
  for line in
    select 'Its time has not come: run_at is ' || spell_time(job.run_at) || '.' where job.run_at > clock()
    union all select * from why_paused(job)
    union all select * from why_held(job)
    union all select * from why_full(job)
    union all select * from why_no_worker(job)
    union all
    select format('Nothing is claimed until %s: the database has failed over, and the workers of before must have gone.',
                  spell_time(c.closed_until))
      from cluster c
     where c.closed_until > clock()
  loop
    found_any := true;
    return next line;
  end loop;
  if not found_any then
    return query select why_not_yet(job);
  end if;
  return query select why_busy(job);
end $$;

create or replace function leasehold.why_paused(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select format('Its agent is paused%s: SELECT leasehold.resume_agent(%L);', ' ("' || a.status_reason || '")', a.name)
    from agents a
   where a.name = job.agent
     and a.status = 'paused'
  union all
  select format('Its agent is %s: an administrator enables it, or SELECT leasehold.cancel(%s);',
                case a.status when 'retired' then 'retired' else 'not approved yet' end, job.id)
    from agents a
   where a.name = job.agent
     and a.status in ('pending_approval', 'retired')
  union all
  select format('Its queue is paused: UPDATE leasehold.queues SET paused = false WHERE name = %L;', q.name)
    from queues q
   where q.name = job.queue
     and q.paused
  union all
  select format('Its tenant is paused: UPDATE leasehold.tenants SET paused = false WHERE name = %L;', t.name)
    from tenants t
   where t.name = job.tenant
     and t.paused;
end $$;

-- Every hold that covers it, with the statement that lifts it; of hosts, those with a live worker.
create or replace function leasehold.why_held(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select format('%s %s%s: SELECT leasehold.lift(%L, %L, %L);',
                case h.scope when 'all' then 'Everything is held'
                             else format('%s %s "%s" is held', case h.scope when 'host' then 'The' else 'Its' end, h.scope, h.name) end,
                case when h.until is null then 'until that is lifted'
                     when h.until > clock() then 'until ' || spell_time(h.until)
                     else format('no more, but one job starts every %s', spell(h.stagger)) end,
                format(' (%s)', concat_ws(': ', h.reason, '"' || printable(h.message, 200) || '"')),
                h.scope, h.name, h.reason)
    from (select c.* from holds_on(job.tenant, job.queue, job.agent, job.repository) c
          union all
          select k.*
            from holds k
           where k.scope = 'host'
             and holds_now(k.until, k.stagger, k.released)
             and exists (select from workers w where w.state = 'alive' and w.host_id = k.name)) h
   order by h.scope, h.name, h.reason;
end $$;

-- Every limit that is reached, with the statement that raises it; of hosts, those with a live worker.
create or replace function leasehold.why_full(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select format('%s at its limit (%s of max_running %s): %s', one.what, count_of(one.live, 'live run'), one.most, one.raise)
    from (select 'Its agent is', a.max_running, (select count(*) from runs r where r.ended_at is null and not r.released and r.agent = a.name),
                 format('UPDATE leasehold.agents SET max_running = %s WHERE name = %L;', a.max_running + 1, a.name)
            from agents a
           where a.name = job.agent
          union all
          select 'Its queue is', q.max_running, (select count(*) from runs r where r.ended_at is null and not r.released and r.queue = q.name),
                 format('UPDATE leasehold.queues SET max_running = %s WHERE name = %L;', q.max_running + 1, q.name)
            from queues q
           where q.name = job.queue
          union all
          select 'Its tenant is', t.max_running, (select count(*) from runs r where r.ended_at is null and not r.released and r.tenant = t.name),
                 format('UPDATE leasehold.tenants SET max_running = %s WHERE name = %L;', t.max_running + 1, t.name)
            from tenants t
           where t.name = job.tenant
          union all
          select 'Its repository is', p.max_running,
                 (select count(*) from runs r where r.ended_at is null and not r.released and (r.tenant, r.repository) = (p.tenant, p.name)),
                 format('UPDATE leasehold.repositories SET max_running = %s WHERE tenant = %L AND name = %L;', p.max_running + 1, p.tenant, p.name)
            from repositories p
           where p.tenant = job.tenant
             and p.name = job.repository
          union all
          select format('The host "%s" is', h.host_id), h.max_running,
                 (select count(*) from runs r where r.ended_at is null and not r.released and r.host_id = h.host_id),
                 format('UPDATE leasehold.hosts SET max_running = %s WHERE host_id = %L;', h.max_running + 1, h.host_id)
            from hosts h
           where exists (select from workers w where w.state = 'alive' and w.host_id = h.host_id)
          union all
          select 'Everything is', c.max_running, (select count(*) from runs r where r.ended_at is null and not r.released),
                 format('SELECT leasehold.limit_all(%s);', c.max_running + 1)
            from cluster c) one (what, most, live, raise)
   where one.live >= one.most;
end $$;

create or replace function leasehold.why_no_worker(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  alive bigint;
  listening bigint;
  places bigint;
  taken bigint;
begin
  select count(*), count(*) filter (where w.queues is null or job.queue = any (w.queues)),
         sum(w.capacity) filter (where w.queues is null or job.queue = any (w.queues)),
         sum((select count(*) from runs r where r.worker_id = w.id and r.ended_at is null))
           filter (where w.queues is null or job.queue = any (w.queues))
    into alive, listening, places, taken
    from workers w
   where w.state = 'alive'
     and w.lease_expires_at > clock();
  if alive = 0 then
    return next 'No worker is alive: start one with `leasehold daemon`, or look at the log of the one that should be.';
  elsif listening = 0 then
    return next format('No live worker listens to queue "%s" (%s to other queues): see LEASEHOLD_QUEUES.',
                       job.queue, case alive when 1 then '1 listens' else alive || ' listen' end);
  elsif taken >= places then
    return next format('All %s of the workers that listen to its queue are taken.', count_of(places, 'place'));
  end if;
end $$;

-- Nothing stands in the way of a queued job: who goes first, and is it late?
create or replace function leasehold.why_not_yet(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  first bigint;
begin
  select count(*) into first
    from (select from jobs j
           where j.lane = job.lane
             and j.status = 'queued'
             and j.due
             and (j.rank, j.id) < (job.rank, job.id)
           limit 1000) ahead;
  if first > 0 then
    return next format('%s of its queue, tenant and agent %s before it.', count_of(first, 'job'), case first when 1 then 'goes' else 'go' end);
  elsif clock() - greatest(job.run_at, job.updated_at) > interval '1 minute' then
    return next 'It should have been claimed by now: maybe a transaction holds its row (pg_stat_activity shows the old ones), or the '
                'daemon has no free place or no keeper (its log says why it does not claim).';
  else
    return next 'Nothing stands in its way: the next free worker takes it.';
  end if;
end $$;

create or replace function leasehold.why_deferred(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  holder jobs;
  first bigint;
begin
  select j.* into holder
    from jobs j
   where j.tenant = job.tenant
     and j.concurrency_key = job.concurrency_key
     and j.conflict_policy <> 'allow'
     and j.status in ('queued', 'running', 'waiting');
  select count(*) into first
    from jobs j
   where j.tenant = job.tenant
     and j.concurrency_key = job.concurrency_key
     and j.status = 'deferred'
     and (-j.priority, j.run_at, j.id) < (-job.priority, job.run_at, job.id);
  return next format('It is deferred by its concurrency key "%s": %s.', job.concurrency_key,
    coalesce(format('job %s has the key and is %s (SELECT * FROM leasehold.why(%s);)', holder.id, holder.status, holder.id),
             'no job has the key now, and the next claim gives it on'));
  if first > 0 then
    return next format('%s deferred by the same key %s before it.', count_of(first, 'job'), case first when 1 then 'goes' else 'go' end);
  end if;
end $$;
