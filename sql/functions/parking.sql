-- Quota and rate limits of an account, shared by all hosts: when one run has met them, no job of the account starts until they reset.

-- A moment as programs write it: ISO 8601 (without a zone: UTC), or seconds since 1970. Null: it is none.
create or replace function leasehold.read_moment(said jsonb) returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
set timezone = 'UTC'
as $$
declare
  words text := said #>> '{}';
begin
  if words ~ '^[0-9]{9,11}(\.[0-9]{1,9})?$' then
    return to_timestamp(words::double precision);
  elsif words ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}' and length(words) < 50 then
    return words::timestamptz;
  end if;
  return null;
exception when data_exception then                                    -- whatever it is: an end that is refused is none
  return null;
end $$;

-- The run has met a limit of its account and knows when that resets: everything of the account waits until then, at least a second and at
-- most 31 days, and comes back one job every 2 seconds. Answers when the job may run again, the hold aside; null: nobody knows.
create or replace function leasehold.park_account(job leasehold.jobs, run bigint, reason text) returns timestamptz
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  resets_at timestamptz;
begin
  if reason not in ('quota', 'rate_limit') then
    return null;
  end if;
  select read_moment(r.result -> 'resets_at') into resets_at from runs r where r.id = park_account.run;
  if resets_at is null or resets_at <= clock() then
    return null;
  end if;
  insert into holds as h (scope, name, reason, message, until, stagger)      -- not by hold(): many runs say it at once, the latest moment counts
  values ('account', account_of(job.agent), park_account.reason,
          format('run %s of job %s met the %s', run, job.id, case park_account.reason when 'quota' then 'quota' else 'rate limit' end),
          least(greatest(resets_at, clock() + interval '1 second'), clock() + interval '31 days'),
          interval '2 seconds')
      on conflict on constraint holds_pkey do update
     set message = excluded.message,
         until = excluded.until,
         stagger = excluded.stagger,
         released = 0,
         created_at = excluded.created_at
   where h.until < excluded.until;                                          -- null: somebody holds it for good
  return least(job.run_at, clock());
end $$;

-- Parking uses no attempt, so it needs an end of its own: so many runs in a row, this one included, that met nothing but this.
create or replace function leasehold.is_parked_too_often(job leasehold.jobs, met text[], most int) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return job.interruptions >= most - 1
     and (select count(*) filter (where last.reason = any (met)) >= most
            from (select r.reason from runs r where r.job_id = job.id order by r.attempt desc limit most) last);
end $$;
