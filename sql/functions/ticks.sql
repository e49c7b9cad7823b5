-- Firing schedules: whichever daemons look, the compare-and-set on (version, next_at) lets one of them fire a tick, in one
-- transaction with the job that it makes. If a call fails, nothing has happened, and any daemon does it again.

-- What must be looked at now, and behind it the first that comes later: `due_in` above 0.
create or replace function leasehold.due_schedules(worker bigint, token uuid, most int)
returns table (schedule bigint, name text, version int, cron text, timezone text, starts_at timestamptz, next_at timestamptz,
               missed_most int, now timestamptz, due_in interval)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                       -- by the index, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  now_ timestamptz := clock();
begin
  perform know_worker(due_schedules.worker, due_schedules.token);
  return query
  (select s.id, s.name, s.version, s.cron, s.timezone, s.starts_at, s.next_at, s.missed_most, now_, interval '0'
     from schedules s
    where s.due_at <= now_
    order by s.due_at, s.id
    limit due_schedules.most)
  union all
  (select s.id, s.name, s.version, s.cron, s.timezone, s.starts_at, s.next_at, s.missed_most, now_, s.due_at - now_
     from schedules s
    where s.due_at > now_
    order by s.due_at, s.id
    limit 1);
end $$;

-- Fire what is due of one schedule and advance it. `ticks`, of a cron schedule, are the grid's points from `expected` on as far
-- as they have come, at least the last of them, and the next one. Answers what was done: fired, missed, failed, planned; taken: nothing.
create or replace function leasehold.fire_schedule(
  worker bigint, token uuid, schedule bigint, version int, expected timestamptz, ticks timestamptz[] default null)
returns table (what text, tick timestamptz, job_id bigint, detail text)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  now_ timestamptz := clock();
  held schedules;
  due timestamptz[];
  upcoming timestamptz;
  chosen timestamptz[];
  asked wake_answer;
begin
  perform hold_worker(fire_schedule.worker, fire_schedule.token);
  held := take_schedule(fire_schedule.schedule, fire_schedule.version, fire_schedule.expected);
  if held.id is null then
    return query select 'taken', null::timestamptz, null::bigint, null::text;
    return;
  end if;
  if held.every is not null then
    ticks := interval_ticks(held, now_);
  elsif coalesce(cardinality(ticks), 0) = 0 then
    perform refuse_arguments('a cron schedule is fired with its ticks');
  end if;
  select coalesce(array_agg(t.at order by t.at) filter (where t.come), '{}'), min(t.at) filter (where not t.come)
    into due, upcoming
    from (select one.at, bool_and(one.nth < cardinality(ticks) and one.at + tick_delay(held.id, one.at, held.jitter) <= now_)
                         over (order by one.nth) as come                          -- none overtakes one that jitter holds back
            from unnest(ticks) with ordinality one (at, nth)) t;
  if held.next_at is null then
    due := '{}';
  end if;
  chosen := chosen_ticks(held, due, now_);
  held.error := null;
  foreach tick in array chosen loop
    begin
      asked := ask_for_schedule(held, tick);
      if asked.disposition in ('accepted', 'deferred') then                       -- not a job of others that it joined
        update jobs j set schedule_id = held.id where j.id = asked.job_id;
      end if;
      held.last_at := tick;
      held.last_wakeup := asked.wakeup_id;
      held.last_job := coalesce(asked.job_id, held.last_job);
      return query select 'fired', tick, asked.job_id, asked.disposition;
    exception when others then
      if left(sqlstate, 2) in ('08', '25', '40', '53', '55', '57', '58', 'XX') then
        raise;                                                                    -- not of the schedule: somebody does it again
      end if;
      held.error := format('%s [%s]', sqlerrm, sqlstate);
      return query select 'failed', tick, null::bigint, held.error;
    end;
  end loop;
  if cardinality(due) > cardinality(chosen) or due[1] > held.next_at then
    return query select 'missed', held.next_at, null::bigint, held.missed;
  elsif held.next_at is null then
    return query select 'planned', upcoming, null::bigint, null::text;
  end if;
  update schedules s
     set next_at = upcoming,
         due_at = upcoming + tick_delay(s.id, upcoming, s.jitter),
         last_at = held.last_at,
         last_wakeup = held.last_wakeup,
         last_job = held.last_job,
         error = held.error
   where s.id = held.id;
end $$;

-- The compare of the compare-and-set. A row that somebody holds (an edit, another daemon) is not waited for.
create or replace function leasehold.take_schedule(schedule bigint, version int, expected timestamptz) returns leasehold.schedules
language sql
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select s.*
    from schedules s
   where s.id = take_schedule.schedule
     and s.version = take_schedule.version
     and s.next_at is not distinct from take_schedule.expected
     and s.due_at <= clock()
     for update skip locked
$$;

-- The grid of an interval from next_at to the first point behind `moment`; of many that were missed the last ones.
create or replace function leasehold.interval_ticks(schedule leasehold.schedules, moment timestamptz) returns timestamptz[]
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  with grid as (
    select extract(epoch from schedule.every) as step,
           floor(extract(epoch from schedule.next_at - schedule.starts_at) / extract(epoch from schedule.every)) as first,
           floor(extract(epoch from moment - schedule.starts_at) / extract(epoch from schedule.every)) as last
  )
  select array_agg(schedule.starts_at + make_interval(secs => (n * g.step)::float8) order by n)
    from grid g,
         generate_series(greatest(g.first, g.last - greatest(schedule.missed_most, 2) + 1), greatest(g.first, g.last) + 1) n
$$;

-- Which of the ticks that have come are fired. `skip` takes one only if it is on time: within a minute of when it was due.
create or replace function leasehold.chosen_ticks(schedule leasehold.schedules, due timestamptz[], moment timestamptz) returns timestamptz[]
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select case
    when cardinality(due) = 0 then '{}'
    when schedule.missed = 'all' then due[greatest(1, cardinality(due) - schedule.missed_most + 1):]
    when schedule.missed = 'skip'
     and due[cardinality(due)] + tick_delay(schedule.id, due[cardinality(due)], schedule.jitter) < moment - interval '1 minute' then '{}'
    else due[cardinality(due):]
  end
$$;

-- The ask itself: a wakeup like any other, so that the agent's switch, its status and the key's policy decide.
create or replace function leasehold.ask_for_schedule(schedule leasehold.schedules, tick timestamptz) returns leasehold.wake_answer
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return wake(
    schedule.agent, tenant => schedule.tenant, prompt => schedule.prompt, source => 'schedule', trigger => 'system', actor_type => 'system',
    actor => 'schedule ' || schedule.id, reason => format('schedule "%s"', schedule.name), queue => schedule.queue,
    priority => schedule.priority, thread => schedule.thread, payload => schedule.payload, conflict_policy => schedule.conflict_policy,
    key => coalesce(schedule.key, 'schedule:' || schedule.id),
    context => schedule.context || jsonb_build_object('schedule', schedule.name, 'tick', tick)
      || case when tick > schedule.next_at then jsonb_build_object('missed_since', schedule.next_at) else '{}' end);
end $$;

-- The calendar cannot say when the next tick is, or a tick cannot be fired at all: said in the row, looked at again in an hour.
create or replace function leasehold.fail_schedule(
  worker bigint, token uuid, schedule bigint, version int, expected timestamptz, error text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  held schedules;
begin
  perform hold_worker(fail_schedule.worker, fail_schedule.token);
  held := take_schedule(fail_schedule.schedule, fail_schedule.version, fail_schedule.expected);
  update schedules s
     set error = fail_schedule.error,
         due_at = clock() + interval '1 hour'
   where s.id = held.id;
  return held.id is not null;
end $$;
