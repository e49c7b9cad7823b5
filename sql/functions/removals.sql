-- Directories that have to go. A row is the intent: written with the decision, performed by the daemon whose state directory it is,
-- and told off when it is gone. Whoever dies in between leaves the row, and the next life goes on with it.

-- Want a directory gone; wanted already: the same. Functions that decide it call this in the same transaction.
create or replace function leasehold.want_removal(
  host_id text, keeper_id text, what text, path text, token uuid default null, rest interval default '0') returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  insert into removals as m (host_id, keeper_id, what, path, token, next_at)
  values (want_removal.host_id, want_removal.keeper_id, want_removal.what, want_removal.path, want_removal.token,
          clock() + want_removal.rest)
      on conflict (host_id, keeper_id, path) where done_at is null do update
     set token = excluded.token,
         next_at = least(m.next_at, excluded.next_at)
   where (m.token, m.next_at) is distinct from (excluded.token, least(m.next_at, excluded.next_at));
end $$;

-- What is to go from this worker's state directory now, the longest due first. Taking one counts as a try and puts it off, so that
-- one that fails, or that kills whoever tries, comes back later and later and is in nobody's way.
create or replace function leasehold.take_removals(worker bigint, token uuid, at_most int default 20)
returns table (removal bigint, what text, path text, run_token uuid)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                       -- its index, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  self workers;
  free text;
  one removals;
begin
  if exists (select from workers w
              cross join lateral (select m.path
                                    from removals m
                                   where m.host_id = w.host_id
                                     and m.keeper_id = w.keeper_id
                                     and m.done_at is null
                                     and m.next_at <= clock()
                                   order by m.next_at
                                   limit least(greatest(at_most, 1), 100)) due
              where w.id = take_removals.worker
                and may_be_claimed(due.path)) then
    perform pg_advisory_xact_lock(hashtextextended('leasehold.claim', 0));      -- before the worker, as in claim(): see storage_is_free()
  end if;
  self := hold_worker(take_removals.worker, take_removals.token);
  for one in
    select m.*
      from removals m
     where m.host_id = self.host_id
       and m.keeper_id = self.keeper_id
       and m.done_at is null
       and m.next_at <= clock()
     order by m.next_at
     limit least(greatest(at_most, 1), 100)
       for update skip locked
  loop
    free := case one.what when 'session' then storage_is_free(one) end;
    if one.what = 'run' and run_is_open(split_part(one.path, '/', 2)::bigint, one.token) or free = 'no' then
      update removals m set done_at = clock(), error = format('left alone: %s', case free when 'no' then 'a session has it' else 'the run is open' end)
       where m.id = one.id;
      continue;
    elsif free = 'later' then
      update removals m set next_at = clock() + interval '1 minute', error = 'a run is in it' where m.id = one.id;
      continue;
    end if;
    update removals m
       set attempts = m.attempts + 1,
           next_at = clock() + least(interval '1 minute' * 2 ^ least(m.attempts, 20), interval '1 day')
     where m.id = one.id;
    removal := one.id;
    what := one.what;
    path := one.path;
    run_token := one.token;
    return next;
  end loop;
end $$;

-- May somebody who is being claimed just now go on with what is there? Only a session that has it, or had it until it was reset.
create or replace function leasehold.may_be_claimed(path text) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  began bigint := substring(may_be_claimed.path from '^sessions/([0-9]{1,18})$')::bigint;
begin
  return exists (select from sessions s where s.path = may_be_claimed.path)
      or exists (select from sessions s where s.conversation = began)
      or exists (select from runs r where r.id = began);
end $$;

-- What became of a try: without an error it is gone.
create or replace function leasehold.end_removal(worker bigint, token uuid, removal bigint, error text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  self workers := hold_worker(end_removal.worker, end_removal.token);
begin
  update removals m
     set error = left(end_removal.error, 1000),
         done_at = case when end_removal.error is null then clock() end
   where m.id = end_removal.removal
     and m.host_id = self.host_id
     and m.keeper_id = self.keeper_id
     and m.done_at is null;
end $$;

-- Run directories that a worker has found and follows no more. Those of runs that are settled, or that the database has never heard
-- of, are wanted gone after a rest; while an outcome may still be told they stay. Answers those that are wanted gone from now on.
create or replace function leasehold.find_orphans(worker bigint, token uuid, runs bigint[], tokens uuid[]) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  self workers := hold_worker(find_orphans.worker, find_orphans.token);
  rest interval := (select case when r.keep is not null then least(r.keep, interval '1000 years') end from retention r where r.what = 'orphans');
begin
  if cardinality(runs) is distinct from cardinality(tokens) then
    perform refuse_arguments('find_orphans needs one token, or null, for each run');
  end if;
  if rest is null then
    return;
  end if;
  return query
  insert into removals (host_id, keeper_id, what, path, token, next_at)
  select self.host_id, self.keeper_id, 'run', 'runs/' || found_.id, found_.token, clock() + rest
    from unnest(find_orphans.runs, tokens) found_ (id, token)
   where found_.id > 0
     and not run_is_open(found_.id, found_.token)
      on conflict (host_id, keeper_id, path) where done_at is null do nothing
  returning split_part(path, '/', 2)::bigint;
end $$;

-- May somebody still need its directory? It lives, or it was given up as lost and may yet say what became of it. Without a token any
-- run of that id counts.
create or replace function leasehold.run_is_open(run bigint, token uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return exists (select from runs r
                  where r.id = run_is_open.run
                    and r.token = coalesce(run_is_open.token, r.token)
                    and (r.ended_at is null or (r.outcome = 'lost' and r.late_outcome is null)));
end $$;
