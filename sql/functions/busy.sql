-- What another run has, a workspace or a lent credential: the job asks again, ever later, and not for ever; and everybody can read what it
-- waits for.

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

-- Who has it, and what frees it.
create or replace function leasehold.why_taken(workspace leasehold.workspaces) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  holder bigint := coalesce((workspace).run_id, (workspace).last_run);
begin
  if (workspace).status is distinct from 'quarantined' then
    return format('workspace %s is in use by run %s', (workspace).id, holder);
  end if;
  return format('workspace %s on host %s is quarantined: processes of run %s in it could not be killed; %sSELECT leasehold.remove_workspace(%s);',
                (workspace).id, left((workspace).host_id, 12), holder,
                case when exists (select from runs r where r.id = holder and r.ended_at is null)
                       then 'it is free when they are gone, or, once that run is lost: '
                     else 'look there, then: ' end, (workspace).id);
end $$;

-- Did the last run of the job meet a workspace that is quarantined?
create or replace function leasehold.is_quarantined(job leasehold.jobs) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  who agents := (select a from agents a where a.name = (job).agent);
  address text := repository_of(who, job);
  shown text := shown_repository(address);
begin
  return exists (
    select
      from (select r.worker_id from runs r where r.job_id = (job).id order by r.attempt desc limit 1) last
      join workers h
        on h.id = last.worker_id
      join workspaces w
        on w.host_id = h.host_id
       and w.keeper_id = h.keeper_id
     where w.tenant = (job).tenant
       and w.status = 'quarantined'
       and (w.agent = (job).agent and coalesce(w.repository, '') in (coalesce(shown, ''), coalesce(address, ''))
              and w.key = workspace_key(job, address)
            or w.repository in (shown, address) and w.branch = (job).branch));
end $$;

-- Its last runs met nothing but what another has: what that is, and how long it goes on asking.
create or replace function leasehold.why_busy(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if job.reason in ('workspace_busy', 'credential_busy') then
    return next format('It has asked %s in a row for what is not free: %s.',
                       count_of(met_in_a_row(job, job.reason, 300), 'time'), job.message);
    return next format('It asks ever later, is blocked if it has asked %s times%s.', most_waits(job, job.reason),
                       ', and times out at ' || spell_time(job.waits_until));
  end if;
end $$;
