-- What users write into schedules: normalised, checked, with messages of our own; and when the next tick is.
--
-- A schedule has a grid: starts_at + n * every, or what cron says in its time zone. Ticks are points of the grid; neither the end of
-- a run nor jitter, a late daemon or a tick by hand moves it. An interval's grid is arithmetic and done here; cron is looked up
-- by the daemon's calendar, so a cron schedule that was written has no next_at until a daemon has seen it.

create or replace function leasehold.schedules_before_write() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  new.tenant := coalesce(nullif(btrim(new.tenant), ''), my_default_tenant());
  new.name := btrim(new.name);
  new.agent := lower(btrim(new.agent));
  new.cron := upper(regexp_replace(btrim(new.cron, e' \t'), '[ \t]+', ' ', 'g'));
  new.timezone := coalesce(nullif(btrim(new.timezone), ''), 'UTC');
  new.starts_at := coalesce(new.starts_at, case tg_op when 'UPDATE' then old.starts_at end, clock());
  new.missed := coalesce(nullif(lower(btrim(new.missed)), ''), 'once');
  new.missed_most := coalesce(new.missed_most, 10);
  new.jitter := coalesce(new.jitter, '0');
  new.enabled := coalesce(new.enabled, true);
  new.key := nullif(btrim(new.key), '');
  new.conflict_policy := coalesce(nullif(lower(btrim(new.conflict_policy)), ''), 'coalesce');
  new.queue := nullif(btrim(new.queue), '');
  new.thread := nullif(btrim(new.thread), '');
  new.payload := coalesce(new.payload, '{}');
  new.context := coalesce(new.context, '{}');
  new.updated_at := clock();
  new.created_at := coalesce(case tg_op when 'UPDATE' then old.created_at end, new.updated_at);

  if not may_act_for(new.tenant) then
    raise exception 'the login "%" may not act for tenant "%"', session_user, new.tenant
      using errcode = 'LH030', hint = 'Leave tenant out, or ask an administrator for a row in leasehold.tenant_logins.';
  end if;
  perform refuse_bad_ask(new);
  perform refuse_bad_grid(new);
  if tg_op = 'INSERT' or new.agent <> old.agent then
    perform refuse_agent_of_schedule(new.agent);
  end if;

  new.error := null;
  if tg_op = 'INSERT' then
    new.version := 1;
    new.last_at := null;
    new.last_wakeup := null;
    new.last_job := null;
  else
    new.version := old.version + 1;
  end if;
  if tg_op = 'INSERT' or (new.cron, new.every, new.timezone, new.starts_at, new.enabled)
       is distinct from (old.cron, old.every, old.timezone, old.starts_at, old.enabled) then
    new.next_at := case when new.enabled then grid_after(new.starts_at, new.every, clock()) end;
  end if;
  new.due_at := case when new.enabled then coalesce(new.next_at + tick_delay(new.id, new.next_at, new.jitter), clock()) end;
  return new;
end $$;

-- One that waits for approval may have its schedules already.
create or replace function leasehold.refuse_agent_of_schedule(agent text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known text := (select a.status from agents a where a.name = refuse_agent_of_schedule.agent);
begin
  if known = 'retired' then
    perform refuse_agent(agent, known);
  elsif known is null then
    raise exception 'there is no agent "%"', refuse_agent_of_schedule.agent
      using errcode = 'LH001', column = 'agent', hint = 'SELECT name FROM leasehold.agents lists them.';
  end if;
end $$;

-- What the jobs will be asked with: refused here rather than at every tick.
create or replace function leasehold.refuse_bad_ask(schedule leasehold.schedules) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  mistake text := case
    when schedule.name is null or schedule.name = '' then 'a schedule needs a name'
    when octet_length(schedule.name) > 200 then 'the name of the schedule is longer than 200 bytes'
    when schedule.agent is null or schedule.agent = '' then 'a schedule needs an agent'
    when schedule.prompt is null or btrim(schedule.prompt, e' \t\r\n') = '' then 'a schedule needs a prompt'
    when octet_length(schedule.prompt) > 1048576 then 'the prompt is longer than 1 MiB'
    when jsonb_typeof(schedule.payload) <> 'object' then format('payload must be a JSON object, not a JSON %s', jsonb_typeof(schedule.payload))
    when jsonb_typeof(schedule.context) <> 'object' then format('context must be a JSON object, not a JSON %s', jsonb_typeof(schedule.context))
    when greatest(pg_column_size(schedule.payload), pg_column_size(schedule.context)) > 900000 then 'payload or context is larger than 900000 bytes'
    when schedule.priority not between 0 and 1000 then format('priority %s is outside 0..1000', schedule.priority)
    when greatest(octet_length(schedule.key), octet_length(schedule.thread)) > 500
      or greatest(octet_length(schedule.tenant), octet_length(schedule.queue)) > 200 then 'key, thread, tenant or queue is too long'
    when schedule.conflict_policy not in ('defer', 'coalesce', 'reject', 'return_existing', 'allow')
      then format('there is no conflict_policy "%s"', schedule.conflict_policy)
  end;
begin
  if mistake is not null then
    raise exception '%', mistake
      using errcode = 'LH079',
            hint = 'INSERT INTO leasehold.schedules (name, agent, prompt, cron) VALUES (''nightly'', ''name'', ''what to do'', ''0 3 * * *''); '
                   'its jobs follow the rules of leasehold.jobs.';
  end if;
end $$;

-- As far as SQL can know: whether 31 February comes, or a time zone is known to the daemon's host too, the calendar finds out.
create or replace function leasehold.refuse_bad_grid(schedule leasehold.schedules) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  if (schedule.cron is null) = (schedule.every is null) then
    raise exception 'a schedule has either cron or every, not %', case when schedule.cron is null then 'neither' else 'both' end
      using errcode = 'LH075', hint = 'Give cron, such as ''0 3 * * *'', or every, such as ''15 minutes'', and NULL for the other.';
  elsif schedule.cron !~ '^([0-9A-Z*/,#-]{1,100} ){4}[0-9A-Z*/,#-]{1,100}$' then
    raise exception 'the cron expression "%" is not five fields of 0-9 A-Z * / , - #', schedule.cron
      using errcode = 'LH076', hint = 'minute hour day month weekday: ''30 3 * * 1-5'' is half past three on working days.';
  elsif not is_time_zone(schedule.timezone) then
    raise exception 'there is no time zone "%"', schedule.timezone
      using errcode = 'LH077', hint = 'Give UTC or a full name such as Europe/Berlin: SELECT name FROM pg_timezone_names lists them.';
  end if;
  bad := case
    when schedule.every < interval '1 second' then 'every is less than a second'
    when extract(year from schedule.every) <> 0 or extract(month from schedule.every) <> 0 then 'every counts in months, which differ in length'
    when schedule.every > interval '3650 days' then 'every is longer than ten years'
    when not isfinite(schedule.starts_at) then 'starts_at is not a moment in time'
    when schedule.missed not in ('skip', 'once', 'all') then format('there is no missed policy "%s"', schedule.missed)
    when schedule.missed_most not between 1 and 1000 then format('missed_most %s is outside 1..1000', schedule.missed_most)
    when schedule.jitter < interval '0' or schedule.jitter > interval '1 day' then 'jitter is below 0 or above a day'
    when schedule.jitter >= schedule.every then 'jitter is not shorter than every'
  end;
  if bad is not null then
    raise exception '%', bad
      using errcode = 'LH078', hint = 'every: from 1 second, cron for months. missed: skip, once or all, at most missed_most. jitter: less than every and a day.';
  end if;
end $$;

-- pg_timezone_names reads every file there is; a conversion reads one. Abbreviations are no time zones: they know no summer.
create or replace function leasehold.is_time_zone(name text) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform clock() at time zone is_time_zone.name;
  return is_time_zone.name = 'UTC' or is_time_zone.name ~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)+$';
exception when invalid_parameter_value then
  return false;
end $$;

-- The first point of the grid of an interval behind `moment`; null without an interval.
create or replace function leasehold.grid_after(origin timestamptz, step interval, moment timestamptz) returns timestamptz
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when step is null then null
    when origin > moment then origin
    else origin + make_interval(secs => ((floor(extract(epoch from moment - origin) / extract(epoch from step)) + 1)
                                         * extract(epoch from step))::float8)
  end
$$;

-- By how much this tick comes later than its place on the grid: always the same for one schedule and tick.
create or replace function leasehold.tick_delay(schedule bigint, tick timestamptz, jitter interval) returns interval
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select jitter * ((hashint8extended(schedule, extract(epoch from tick)::bigint) & 16777215) / 16777216.0::float8)
$$;

create or replace function leasehold.ring_schedules() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform pg_notify('leasehold_schedules', '');
  return null;
end $$;
