-- What became of runs that had been given up as lost: their outcome and output arrive after all, once (protocol rule 20).
-- Their verdict stands; nothing here changes a job but settle_late(), and that only while nothing else has happened to it.

-- The bodies of runs that ended as lost and whose real outcome nobody has reported yet, for whoever holds their token and exit record.
create or replace function leasehold.read_late(worker bigint, token uuid, runs bigint[], tokens uuid[])
returns setof leasehold.run_bodies
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform know_worker(read_late.worker, read_late.token);
  return query
  select body.*
    from unnest(read_late.runs, tokens) wanted (id, token)
   cross join lateral (select u.* from leasehold.runs u where u.id = wanted.id offset 0) r
   cross join lateral (select b.* from run_bodies b where b.run_id = r.id offset 0) body
   where r.token = wanted.token
     and r.outcome = 'lost'
     and r.late_outcome is null;
end $$;

-- The rest of such a run's output. Refused once its late outcome is written, and for every run that was not lost.
create or replace function leasehold.append_late_output(
  worker bigint, token uuid, run bigint, run_token uuid, streams text[], offsets bigint[], chunks bytea[]) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  lost runs;
begin
  perform know_worker(append_late_output.worker, append_late_output.token);
  select r.* into lost
    from runs r
   where r.id = append_late_output.run
     for share;
  if lost.id is null or lost.token is distinct from append_late_output.run_token
     or lost.outcome is distinct from 'lost' or lost.late_outcome is not null then
    perform refuse_run(run, run_token, worker);
  end if;
  insert into output (run_id, stream, byte_offset, job_id, tenant, bytes)
  select lost.id, o.stream, o.byte_offset, lost.job_id, lost.tenant, o.bytes
    from unnest(streams, offsets, chunks) as o (stream, byte_offset, bytes)
      on conflict (run_id, stream, byte_offset) do nothing;
end $$;

-- The real outcome of a run that had been given up as lost. The verdict stays; this is written once. The job is settled with it
-- if it is still queued right after that run: not started again, not cancelled, not retried by hand, not asked for more.
create or replace function leasehold.settle_late(
  run leasehold.runs, outcome text, reason text, message text, exit_code int, signal int, result jsonb,
  resources jsonb default null, output jsonb default null)
returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job jobs;
  facts jsonb := jsonb_build_object('exit_code', exit_code, 'signal', signal);
begin
  if (run).late_outcome is not null then
    if (run).late_outcome ->> 'outcome' = outcome and (run).late_outcome ->> 'reason' = reason then
      return;
    end if;
    perform refuse_run((run).id, (run).token);
  end if;
  update runs r
     set late_outcome = jsonb_strip_nulls(facts || jsonb_build_object(
           'outcome', settle_late.outcome, 'reason', settle_late.reason, 'message', settle_late.message,
           'result', settle_late.result, 'at', clock())),
         resources = coalesce(r.resources, settle_late.resources),
         output = coalesce(r.output, settle_late.output)
   where r.id = (run).id;
  delete from output o                                               -- what had scrolled out of the tail meanwhile
   using jsonb_each(settle_late.output) s
   where o.run_id = (run).id
     and o.stream = s.key
     and jsonb_array_length(s.value -> 'kept') = 2
     and o.byte_offset >= (s.value #>> '{kept,0,1}')::bigint
     and o.byte_offset + octet_length(o.bytes) <= (s.value #>> '{kept,1,0}')::bigint;
  select j.* into strict job from jobs j where j.id = (run).job_id;
  perform note(job.id, job.tenant, (run).id, 'late_outcome', message,
               jsonb_strip_nulls(facts || jsonb_build_object('outcome', outcome, 'reason', reason)));
  if job.status = 'queued'
     and job.cancel_requested_at is null
     and outcome not in ('lost', 'interrupted')
     and not exists (select from runs r where r.job_id = job.id and r.attempt > (run).attempt)
     and not exists (select from events e
                      where e.job_id = job.id
                        and e.kind in ('retried', 'coalesced')
                        and e.seq > coalesce((select max(x.seq) from events x      -- none: it has been swept, see retention
                                      where x.job_id = job.id and x.run_id = (run).id and x.kind in ('lost', 'failed', 'cancelled')), 0)) then
    job.losses := job.losses - 1;                                    -- it was no loss after all
    job.interruptions := job.interruptions - 1;
    perform settle_job('late', job, run, outcome, reason, message, result, facts);
  end if;
end $$;
