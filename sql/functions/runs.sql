-- A run between its claim and its end: read, started, fenced.

-- What a worker needs to start or to take up its live runs. The claim returns ids only: its rows leave before the commit,
-- and a stopped client with a full socket would hold the claim for everybody.
create or replace function leasehold.read_runs(worker bigint, token uuid, runs bigint[]) returns setof leasehold.run_bodies
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform know_worker(read_runs.worker, read_runs.token);
  return query
  select body.*
    from unnest(read_runs.runs) wanted (id)
   cross join lateral (select u.id, u.worker_id, u.ended_at from leasehold.runs u where u.id = wanted.id offset 0) r
   cross join lateral (select b.* from run_bodies b where b.run_id = r.id offset 0) body
   where r.worker_id = read_runs.worker
     and r.ended_at is null;
end $$;

-- The process exists. Repeatable: an answer can be lost. A stop that came first stays.
create or replace function leasehold.start_run(worker bigint, token uuid, run bigint, run_token uuid, identity jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(start_run.worker, start_run.token, start_run.run, start_run.run_token);
begin
  if current_.started_at is not null then
    return;
  end if;
  perform set_config('leasehold.actor', 'start', true);
  update runs r
     set status = case r.status when 'starting' then 'running' else r.status end,
         identity = start_run.identity,
         started_at = clock()
   where r.id = current_.id;
  perform set_config('leasehold.actor', '', true);
  perform note(current_.job_id, current_.tenant, current_.id, 'spawned', null, start_run.identity);
  perform say_prompt(current_);
end $$;

-- The gate of what a worker says of a live run of its own: locks head and run, or refuses.
create or replace function leasehold.hold_run(worker bigint, token uuid, run bigint, run_token uuid) returns leasehold.runs
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  held runs;
begin
  perform know_worker(hold_run.worker, hold_run.token);
  perform from heads h                                          -- the head before the run, as everywhere
    where h.job_id = (select r.job_id from runs r where r.id = hold_run.run)
      for update;
  select r.* into held
    from runs r
   where r.id = hold_run.run
     for update;
  if held.id is null or held.token is distinct from hold_run.run_token
     or held.ended_at is not null or held.worker_id <> hold_run.worker then
    perform refuse_run(run, run_token, worker);
  end if;
  return held;
end $$;

-- Lock what belongs to a run, in the order that holds everywhere: job, head, run.
create or replace function leasehold.lock_run(run bigint) returns leasehold.runs
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job bigint := (select r.job_id from runs r where r.id = lock_run.run);
  locked runs;
begin
  perform from jobs j where j.id = job for update;
  perform from heads h where h.job_id = job for update;
  select r.* into locked from runs r where r.id = lock_run.run for update;
  return locked;
end $$;

-- Say why a write for this run is refused.
create or replace function leasehold.refuse_run(run bigint, run_token uuid, worker bigint default null) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known runs;
begin
  select r.* into known from runs r where r.id = refuse_run.run;
  if known.id is null then
    raise exception 'there is no run %', coalesce(run::text, 'NULL')
      using errcode = 'LH013', hint = 'It may have been lost in a failover: stop its process and write nothing.';
  elsif known.token is distinct from run_token then
    raise exception 'run % has another token', run
      using errcode = 'LH011', hint = 'The id was given again after a failover: stop this process and write nothing.';
  elsif known.ended_at is null and known.worker_id is distinct from worker then
    raise exception 'run % belongs to worker %', run, known.worker_id
      using errcode = 'LH011', hint = 'It was adopted: stop nothing, write nothing, let that worker go on with it.';
  end if;
  if known.ended_at is null then
    raise exception 'run % has not ended', run
      using errcode = 'LH016', hint = 'Only what had been given up as lost is reported late: use append_output() and finish_run().';
  end if;
  raise exception 'run % has ended as %', run, known.outcome
    using errcode = 'LH010', detail = format('outcome=%s reason=%s', known.outcome, known.reason),
          hint = 'The first verdict stands: stop its process and write nothing more for it.';
end $$;
