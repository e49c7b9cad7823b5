-- Take the runs of workers that are gone. Any number of reapers: the worker row is the gate, with the predicate repeated on it.
--
-- The lease is judged by the database's clock, which can step; so a suspect is taken only if its renewal counter still is what
-- the reaper has seen for one whole lease on a clock that cannot. Live runs of workers closed or lost before are taken, too:
-- a reaper may have died half way.
create or replace function leasehold.reap(worker bigint, token uuid, suspects bigint[], renewals bigint[])
returns table (run_id bigint, job_id bigint, lost_worker bigint, instance text, job_status text)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  orphan record;
  current_ runs;
  held int := 0;
begin
  if cardinality(suspects) is distinct from cardinality(reap.renewals) then
    perform refuse_arguments('reap needs one number of renewals for each suspect');
  end if;
  perform hold_worker(reap.worker, reap.token);
  if not claims_are_open() then
    return;
  end if;
  perform close_suspects(reap.worker, suspects, reap.renewals);
  for orphan in
    select r.id, r.job_id, r.worker_id, w.instance, w.state
      from runs r
     cross join lateral (select k.instance, k.state from workers k where k.id = r.worker_id offset 0) w      -- always an index probe
     where r.ended_at is null
       and w.state in ('closed', 'lost')
     order by r.job_id
  loop
    exit when held >= 50;                                                 -- of those that we hold: what is held by others fills no place
    perform from jobs j where j.id = orphan.job_id for update skip locked;      -- a user's open transaction must not stop us
    continue when not found;
    held := held + 1;
    current_ := lock_run(orphan.id);
    continue when current_.ended_at is not null or current_.worker_id <> orphan.worker_id;
    run_id := current_.id;
    job_id := current_.job_id;
    lost_worker := orphan.worker_id;
    instance := orphan.instance;
    job_status := end_run('reap', current_, 'lost', case when current_.unkillable_since is null then 'worker_lost' else 'unkillable' end,
                          format('worker %s (%s) stopped renewing its lease', orphan.worker_id, orphan.instance));
    return next;
  end loop;
end $$;

create or replace function leasehold.close_suspects(reaper bigint, suspects bigint[], renewals bigint[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform set_config('leasehold.actor', 'reap', true);
  with gone as materialized (
    select w.id
      from unnest(close_suspects.suspects, close_suspects.renewals) seen (id, renewals)
     cross join lateral (select k.*
                           from workers k
                          where k.id = seen.id
                            and k.id <> reaper
                            and k.state = 'alive'
                            and k.lease_expires_at <= clock()
                            and k.renewals = seen.renewals
                            for update skip locked) w
  )
  update workers w
     set state = 'lost',
         ended_at = clock()
   where w.id = any (array(select g.id from gone g))
     and w.state = 'alive'
     and w.lease_expires_at <= clock();
  perform set_config('leasehold.actor', '', true);
end $$;
