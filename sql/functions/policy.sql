-- The whole retry policy: what follows for a job when a run of it ends so, driven by the table `reasons` (vocabulary.sql).

-- ends_as is null if it goes back to the queue, at again_at.
create or replace function leasehold.what_follows(
  job leasehold.jobs, run bigint, outcome text, reason text,
  out ends_as text, out why text, out again_at timestamptz, out attempts int, out interruptions int, out losses int)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  policy reasons;
  session text := poison_session(job, run, outcome, reason);
begin
  select r.* into strict policy
    from reasons r
   where r.outcome = what_follows.outcome
     and r.reason = what_follows.reason;
  why := reason;
  attempts := job.attempts + policy.uses_attempt::int;
  interruptions := job.interruptions + (not policy.uses_attempt)::int;
  losses := job.losses + (outcome = 'lost')::int;
  if outcome = 'succeeded' then                                       -- it was done before a stop could reach it
    ends_as := 'succeeded';
  elsif reason = 'unkillable' then                                    -- its tree may live: neither again nor "cancelled", which means gone
    ends_as := 'failed';
  elsif job.cancel_requested_at is not null or outcome = 'cancelled' then
    ends_as := 'cancelled';
    why := 'cancelled';
  elsif outcome = 'lost' and losses >= job.max_losses then
    ends_as := 'failed';
    why := 'crash_cap';
  elsif policy.follows = 'again' then
    again_at := least(job.run_at, clock());                           -- not the job's fault: it keeps its place
  elsif reason in ('quota', 'rate_limit') and is_parked_too_often(job, '{quota,rate_limit}', 100) then
    ends_as := 'failed';
    why := 'quota_cap';
  elsif reason = 'disk_full' and is_parked_too_often(job, '{disk_full}', 10) then
    ends_as := 'failed';
    why := 'disk_cap';                                                -- maybe it is the one that fills the disk
  elsif policy.follows = 'park' and reason in ('workspace_busy', 'credential_busy') then
    again_at := clock() + wait_for_others(job, run, reason, policy.park);
    if again_at is null then
      ends_as := 'blocked';                                           -- by others, and they do not let go
      why := case reason when 'workspace_busy' then 'workspace_cap' else 'credential_cap' end;
    end if;
  elsif policy.follows = 'park' then
    again_at := coalesce(park_account(job, run, reason), clock() + parking(policy.park, run));
  elsif policy.follows = 'backoff' and attempts < job.max_attempts and session = 'stop' then
    ends_as := 'failed';
    why := 'session_poisoned';
  elsif policy.follows = 'backoff' and attempts < job.max_attempts then
    again_at := clock() + backoff(job.agent, case when policy.uses_attempt then attempts else interruptions end, run);
  else
    ends_as := outcome;
  end if;
end $$;

-- Doubling, capped, then spread by a tenth either way, the same for the same run.
create or replace function leasehold.backoff(agent text, attempts int, run bigint) returns interval
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  policy record;
begin
  select extract(epoch from coalesce(a.retry_backoff, '5 seconds'))::float8 as first_wait,
         extract(epoch from coalesce(a.retry_backoff_max, '10 minutes'))::float8 as longest_wait into policy
    from (select) nothing
    left join agents a
      on a.name = backoff.agent;
  return make_interval(secs =>
    least(policy.longest_wait, policy.first_wait * 2 ^ greatest(least(attempts - 1, 40), 0)) * (0.9 + 0.2 * spread(run)));
end $$;

-- Never less than it says, up to a tenth more: what was parked together does not come back together.
create or replace function leasehold.parking(park interval, run bigint) returns interval
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return park * (1 + 0.1 * spread(run));
end $$;

-- 0 to 1, the same for the same run.
create or replace function leasehold.spread(run bigint) returns double precision
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (hashint8extended(run, 0) & 1023) / 1023.0;
end $$;
