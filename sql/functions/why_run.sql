-- The part of why() about each attempt: where it ran, how it ended, what that cost, what was left of it.

-- Attempts, and what happened between them, in order. Of very many attempts the last ten.
create or replace function leasehold.why_history(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  one record;
  newest int := coalesce((select max(r.attempt) from runs r where r.job_id = job.id), 0);
begin
  if newest > 10 then
    return next format('%s left out here: SELECT * FROM leasehold.runs WHERE job_id = %s;',
                       count_of(newest - 10, 'earlier attempt is', 'earlier attempts are'), job.id);
  end if;
  for one in
    select r.claimed_at as at, 0 as place, r.id as run, null::text as line
      from runs r
     where r.job_id = job.id
       and r.attempt > newest - 10
    union all
    select e.at, e.seq, null,
           case e.kind
             when 'promoted' then format('Its concurrency key was given to it at %s.', spell_time(e.at))
             else format('"%s" retried it at %s; it had %s.', e.data ->> 'by', spell_time(e.at), replace(e.data ->> 'was', '_', ' '))
           end
      from events e
     where e.job_id = job.id
       and e.kind in ('promoted', 'retried')
     order by at, place
  loop
    if one.run is null then
      return next one.line;
    else
      return query select line from runs r, why_run(r) line where r.id = one.run;
    end if;
  end loop;
end $$;

create or replace function leasehold.why_run(run leasehold.runs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  place workers;
begin
  select w.* into place from workers w where w.id = run.worker_id;
  return next format('Attempt %s (run %s) was claimed at %s by worker %s (%s on host %s).',
                     run.attempt, run.id, spell_time(run.claimed_at), place.id, place.instance, left(place.host_id, 12));
  if run.started_at is not null then
    return next format('  It started %s later%s.', spell(run.started_at - run.claimed_at),
                       format(' as process %s, contained by %s', run.identity ->> 'pid', run.identity ->> 'containment'));
  end if;
  if run.session_elsewhere is not null then
    return next format('  What its session has kept is on host %s%s.', left(run.session_elsewhere, 12),
                       case when run.session_before is null then ', so it began a new one' else '' end);
  end if;
  return query select '  ' || line from why_told(run) line;
  if run.ended_at is not null then
    return query select '  ' || line from why_ended(run) line;
  else
    return next format('  It has been live for %s.', spell(clock() - run.claimed_at));
  end if;
end $$;

-- What was noted while it lived that an operator should know.
create or replace function leasehold.why_told(run leasehold.runs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select case e.kind
           when 'adopted' then format('Worker %s took it over from worker %s at %s.', e.data ->> 'worker', e.data ->> 'from', spell_time(e.at))
           when 'cancel_requested' then format('Its cancellation reached it at %s.', spell_time(e.at))
           when 'stopping' then format('Its stop began at %s: %s.', spell_time(e.at), coalesce(e.data ->> 'why', e.message))
           when 'suspect' then format('It was suspected to be stuck at %s: %s.', spell_time(e.at), said.words)
           when 'unkillable' then format('Its processes outlived every kill at %s: %s.', spell_time(e.at), said.words)
           when 'output_truncated' then format('Its output was cut at %s: %s.', spell_time(e.at), said.words)
           when 'events_truncated' then format('Its events were cut at %s: %s.', spell_time(e.at), said.words)
           when 'limit_unenforced' then format('Its host does not enforce a limit: %s.', said.words)
           when 'error' then format('It reported an error at %s: "%s"', spell_time(e.at), printable(said.words))
         end
    from events e
   cross join lateral (select case when e.kind = 'error' and e.message is not null then e.message
                                   else coalesce(nullif(concat_ws('; ', e.message, spell_facts(e.data)), ''), 'no more is known') end) said (words)
   where e.job_id = run.job_id
     and e.run_id = run.id
     and (e.kind in ('adopted', 'cancel_requested', 'stopping', 'suspect', 'unkillable', 'output_truncated', 'events_truncated',
                     'limit_unenforced')
          or (e.kind = 'error'
              and e.seq = (select max(x.seq) from events x where x.job_id = run.job_id and x.run_id = run.id and x.kind = 'error')))
   order by e.seq;
end $$;

-- The verdict, what it means, what it cost.
create or replace function leasehold.why_ended(run leasehold.runs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known reasons;
begin
  select r.* into known from reasons r where r.outcome = run.outcome and r.reason = run.reason;
  return next format('It %s at %s, %s: %s.',
                     case run.outcome when 'succeeded' then 'succeeded' when 'failed' then 'failed' when 'timed_out' then 'timed out'
                       else 'was ' || run.outcome end,
                     spell_time(run.ended_at),
                     case when run.started_at is null then 'without having started' else 'after ' || spell(run.ended_at - run.started_at) end,
                     concat_ws(', ', run.reason, nullif(printable(run.message), ''),
                               case when run.message !~ 'code' then 'exit code ' || run.exit_code end,
                               case when run.message !~ 'SIG' then signal_name(run.signal) end));
  if known.reason <> 'ok' then
    return next format('Advice: %s', known.advice);
    return next case when known.uses_attempt then 'It used up one attempt.' else 'It used up no attempt.' end;
  end if;
  return query select * from why_used(run);
  return query select * from why_cost(run);
  if run.late_outcome is not null then
    return next format('Its real outcome arrived at %s: %s.', spell_time((run.late_outcome ->> 'at')::timestamptz),
                       concat_ws(', ', run.late_outcome ->> 'outcome', run.late_outcome ->> 'reason', run.late_outcome ->> 'message'));
  end if;
end $$;

-- What it has cost, which conversation it was in, and why nobody goes on with that.
create or replace function leasehold.why_cost(run leasehold.runs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if run.input_tokens is not null then
    return next format('It cost %s: %s tokens in, %s out, %s cached%s.',
                       coalesce(trim_scale(run.cost_usd) || ' USD', 'nobody knows what'), run.input_tokens, run.output_tokens,
                       run.cached_tokens,
                       case when run.unpriced > 0 then format('; %s without a price', count_of(run.unpriced, 'report')) else '' end);
  end if;
  if run.poisoned is not null then
    return next format('It went on with session "%s", with which nobody goes on any more: %s.', printable(run.session_before), run.poisoned);
  end if;
end $$;

create or replace function leasehold.why_used(run leasehold.runs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  used jsonb := coalesce(run.resources, '{}');
  swept bigint := coalesce((used ->> 'swept')::bigint, 0);
  words text := concat_ws(', ',
    (used ->> 'cpu_seconds') || ' s of CPU',
    spell_bytes((used ->> 'memory_peak')::numeric) || ' of memory at most',
    count_of((used ->> 'pids_peak')::bigint, 'process', 'processes') || ' at most',
    spell_bytes((used ->> 'io_bytes')::numeric) || ' read and written');
begin
  if words <> '' then
    return next format('It used %s.', words);
  end if;
  if swept > 0 then
    return next format('%s of its tree had to be killed.', count_of(swept, 'process', 'processes'));
  end if;
  if used ->> 'tree' <> '' then
    return next 'Its process tree before the kill:';
    return query select '| ' || line from regexp_split_to_table(rtrim(used ->> 'tree', e'\n'), e'\n') line limit 40;
  end if;
end $$;

-- The last lines of the last run that wrote any: stderr, else stdout.
create or replace function leasehold.why_output(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  found_ record;
  dropped bigint;
begin
  for found_ in
    select r.id, r.attempt, s.name, (r.output -> s.name ->> 'dropped')::bigint as dropped, output_end(r.id, s.name) as bytes
      from (select u.* from runs u where u.job_id = job.id order by u.attempt desc limit 3) r
     cross join unnest(array['stderr', 'stdout']) with ordinality s (name, nth)
     order by r.attempt desc, s.nth
  loop
    continue when found_.bytes is null;
    if found_.dropped > 0 then
      return next format('%s of its %s were not kept: only the beginning and the end are there.', spell_bytes(found_.dropped), found_.name);
    end if;
    return next format('The end of its %s, in attempt %s:', found_.name, found_.attempt);
    return query select '  | ' || line from last_lines(found_.bytes, 10) line;
    return;
  end loop;
end $$;

-- The last 4 KiB or so of a stream; null if it is empty or blank.
create or replace function leasehold.output_end(run bigint, stream text) returns bytea
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  chunk record;
  bytes bytea := '';
begin
  for chunk in
    select o.bytes from output o where o.run_id = output_end.run and o.stream = output_end.stream order by o.byte_offset desc limit 64
  loop
    bytes := chunk.bytes || bytes;
    exit when octet_length(bytes) > 4096;
  end loop;
  bytes := btrim(substr(bytes, greatest(1, octet_length(bytes) - 4095)), '\x0a0d2009'::bytea);
  return nullif(bytes, '');
end $$;

create or replace function leasehold.last_lines(bytes bytea, most int) returns setof text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  lines text[] := '{}';
  at int;
begin
  loop
    at := position('\x0a'::bytea in bytes);
    lines := lines || printable(case at when 0 then bytes else substr(bytes, 1, at - 1) end);
    exit when at = 0;
    bytes := substr(bytes, at + 1);
  end loop;
  return query select line from unnest(lines[greatest(1, cardinality(lines) - most + 1):]) line;
end $$;

-- What happens next, when, and what one can do about it.
create or replace function leasehold.why_next(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  attempt text := format('attempt %s of %s', job.attempts + 1, job.max_attempts);
begin
  return next 'Next: ' || case
    when job.status = 'queued' and job.run_at > clock()
      then format('%s starts at %s, if a worker is free then.', attempt, spell_time(job.run_at))
    when job.status = 'queued' then format('%s starts when a worker claims it.', attempt)
    when job.status = 'deferred' then 'it is queued when the job before it has ended.'
    when job.status in ('running', 'waiting') and job.cancel_requested_at is not null
      then 'it is cancelled when its processes are gone.'
    when job.status in ('running', 'waiting') and job.attempts + 1 < job.max_attempts
      then format('if this attempt fails, %s may follow.', count_of(job.max_attempts - job.attempts - 1, 'more attempt'))
    when job.status in ('running', 'waiting') then 'if this attempt fails, the job fails: it is the last one.'
    when job.status = 'succeeded' then 'nothing. It is done.'
    when job.status = 'cancelled' then 'nothing. It was cancelled.'
    when job.reason = 'crash_cap' then format('nothing. It has lost its worker %s (max_losses).', count_of(job.losses, 'time'))
    when job.attempts >= job.max_attempts
      then format('nothing. %s used up.', count_of(job.attempts, 'attempt is', 'attempts are'))
    else format('nothing. After %s it is not tried again by itself.', job.reason) end;
  if job.status in ('failed', 'timed_out', 'blocked', 'cancelled') then
    return next format('To give it one more attempt: SELECT leasehold.retry(%s);', job.id);
  elsif job.status in ('queued', 'deferred', 'running', 'waiting') and job.cancel_requested_at is null then
    return next format('To end it: SELECT leasehold.cancel(%s, ''why'');', job.id);
  end if;
end $$;
