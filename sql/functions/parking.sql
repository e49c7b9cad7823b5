-- Waiting that is nobody's failure. Quota and rate limits of an account, shared by all hosts: when one run has met them, no job of the
-- account starts until they reset. What another run has, a workspace or a credential: the job asks again, ever later, and not for ever.

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

-- The last runs of the job that met this, one after the other; no more than `most` are looked at.
create or replace function leasehold.met_in_a_row(job leasehold.jobs, met text, most int) returns int
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select coalesce(min(last.nth) filter (where last.reason is distinct from met) - 1, count(*))
            from (select r.reason, row_number() over (order by r.attempt desc) as nth
                    from runs r
                   where r.job_id = job.id
                     and r.ended_at is not null
                   order by r.attempt desc
                   limit most) last);
end $$;

-- How many times in a row it asks for what another has. What is quarantined is seldom let go without somebody who looks.
create or replace function leasehold.most_waits(job leasehold.jobs, reason text) returns int
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when reason = 'workspace_busy' and is_quarantined(job) then 20 else 300 end;
end $$;

-- Until it asks again: 1, 2, 4, then 5 times `park`. Null: it has asked often enough.
create or replace function leasehold.wait_for_others(job leasehold.jobs, run bigint, reason text, park interval) returns interval
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  asked int := greatest(met_in_a_row(job, reason, 300), 1);
begin
  return case when asked < most_waits(job, reason) then parking(park, run) * least(2 ^ least(asked - 1, 3), 5) end;
end $$;
