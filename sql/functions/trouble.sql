-- What a daemon says of a live run that goes badly: it is being stopped, it is suspiciously silent, it does not die.

-- Somebody wants its end; the ladder has begun. Repeatable.
create or replace function leasehold.stop_run(worker bigint, token uuid, run bigint, run_token uuid, why text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(stop_run.worker, stop_run.token, stop_run.run, stop_run.run_token);
begin
  if current_.status = 'stopping' then
    return;
  end if;
  perform set_config('leasehold.actor', 'stop', true);
  update runs r
     set status = 'stopping'
   where r.id = current_.id;
  perform set_config('leasehold.actor', '', true);
  perform note(current_.job_id, current_.tenant, current_.id, 'stopping', null, jsonb_build_object('why', stop_run.why));
end $$;

-- One of its clocks is about to strike. Nothing is stopped yet. The same said twice in a row is one event: an answer was lost.
create or replace function leasehold.suspect_run(
  worker bigint, token uuid, run bigint, run_token uuid, clock text, facts jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(suspect_run.worker, suspect_run.token, suspect_run.run, suspect_run.run_token);
  said jsonb := coalesce(suspect_run.facts, '{}') || jsonb_build_object('clock', suspect_run.clock);
begin
  if exists (select from heads h
              cross join lateral (select e.* from events e where e.job_id = h.job_id and e.seq = h.seq) newest
              where h.job_id = current_.job_id
                and newest.run_id = current_.id
                and newest.kind = 'suspect'
                and newest.data = said) then
    return;
  end if;
  update runs r
     set suspected_at = clock()
   where r.id = current_.id;
  perform note(current_.job_id, current_.tenant, current_.id, 'suspect',
               format('silent for %s s; the clock "%s" strikes at %s s', coalesce(said ->> 'silent_seconds', '?'), suspect_run.clock,
                      coalesce(said ->> 'limit_seconds', '?')),
               said, 'warning');
end $$;

-- Its tree survived SIGKILL. The run stays live, so that its slot, key and workspace stay taken; should its worker be lost, the job
-- fails instead of running a second time beside it.
create or replace function leasehold.report_unkillable(worker bigint, token uuid, run bigint, run_token uuid, facts jsonb) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(report_unkillable.worker, report_unkillable.token, report_unkillable.run, report_unkillable.run_token);
begin
  if current_.unkillable_since is not null then
    return;
  end if;
  update runs r
     set unkillable_since = clock()
   where r.id = current_.id;
  perform note(current_.job_id, current_.tenant, current_.id, 'unkillable', 'processes survived SIGKILL', facts, 'error');
end $$;

-- Jobs that have waited longer than their agent's queue_timeout end without a run. Small batches; what a user or a claim holds waits
-- for the next turn.
create or replace function leasehold.expire_queued(worker bigint, token uuid) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  late record;
  words text;
begin
  perform hold_worker(expire_queued.worker, expire_queued.token);
  for late in
    select l.*
      from (select j.id, j.tenant, j.status, j.concurrency_key, j.conflict_policy,
                   case when j.reason in ('workspace_busy', 'credential_busy') then j.message end as met
              from jobs j
             where j.waits_until <= clock()
               and j.status in ('queued', 'deferred')
             order by j.waits_until
             limit 100
               for update skip locked) l
     order by l.status <> 'deferred', l.id                             -- what waits ends before what it waits for, and is not promoted
  loop
    words := 'it waited longer than the queue_timeout of its agent' || coalesce(': ' || late.met, '');
    perform set_config('leasehold.actor', 'expire', true);
    update jobs j
       set status = 'timed_out',
           reason = 'queue',
           message = words,
           finished_at = clock(),
           updated_at = clock()
     where j.id = late.id;
    perform set_config('leasehold.actor', '', true);
    perform note(late.id, late.tenant, null, 'timed_out', words,
                 jsonb_build_object('reason', 'queue'), 'error');
    if late.status = 'deferred' then
      perform reject_wakeups(late.id, 'timed_out');
    elsif late.concurrency_key is not null and late.conflict_policy <> 'allow'
          and live_of(late.tenant, late.concurrency_key) is null then      -- else its follow-up has the key already
      perform promote_next(late.tenant, late.concurrency_key);
    end if;
    return next late.id;
  end loop;
  perform take_up_moves();                                            -- of threads that somebody held
end $$;
