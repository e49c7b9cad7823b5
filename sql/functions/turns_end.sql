-- What becomes of turns when their agent says so, when their run ends, and when their job does: heard, delivered again, or a job of
-- their own. None is silently absorbed.
--
-- Given means: its keeper has it, so the run has heard it, or dies before it does. What the agent has not said to be done when its run
-- ends is given again to the next run of the same job, as the job's prompt is. With the end of its job it ends, too.

-- An agent says of a turn that it is done, or that it cannot take it. The first word stands.
create or replace function leasehold.record_turn(run leasehold.runs, data jsonb) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known turns;
  words text := nullif(left(data ->> 'why', 1000), '');
begin
  if coalesce(data ->> 'turn', '') !~ '^[0-9]{1,18}$' then
    return;
  end if;
  select t.* into known
    from turns t
   where t.id = (data ->> 'turn')::bigint
     and t.job_id = (run).job_id
     and t.ended_at is null;
  if not found then
    return;
  elsif data ->> 'state' = 'ended' or data ->> 'state' = 'refused' and known.kind = 'interrupt' then
    known.run_id := (run).id;
    update turns t
       set run_id = (run).id,
           acknowledged_at = coalesce(t.acknowledged_at, clock())
     where t.id = known.id;
    perform end_turn(known, 'ended', case data ->> 'state' when 'ended' then 'done' else 'refused' end, words);
  elsif data ->> 'state' = 'refused' then
    update turns t
       set state = 'pending',
           deliverable = false,
           run_id = null,
           acknowledged_at = null,
           why = concat_ws(': ', 'its agent could not take it', words) || '; this becomes a job of its own when this one is over'
     where t.id = known.id;
  end if;
end $$;

-- A run has ended and its job goes on: what was not done is said to the next run.
create or replace function leasehold.put_back_turns(job leasehold.jobs, run bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  open_ turns;
begin
  for open_ in
    select t.* from turns t where t.job_id = job.id and t.state in ('pending', 'acknowledged') order by t.seq
  loop
    if open_.kind = 'interrupt' then
      perform end_turn(open_, 'ended', 'run_ended', 'its run has ended');
    else
      update turns t
         set state = 'pending',
             deliverable = takes(job.agent, t.kind),
             why = case when open_.acknowledged_at is not null then format('run %s had it and ended before it was done', open_.run_id) else t.why end
       where t.id = open_.id;
    end if;
  end loop;
end $$;

-- The trigger on jobs that end, by whatever way. It comes before the event of that end, which is the last one.
create or replace function leasehold.jobs_end_turns() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if exists (select from turns t where t.job_id = new.id and t.state in ('pending', 'acknowledged')) then
    perform end_turns(new);
  end if;
  return null;
end $$;

create or replace function leasehold.end_turns(job leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  last_run bigint := (select r.id from runs r where r.job_id = job.id order by r.attempt desc limit 1);
  ended_so text := case job.status when 'timed_out' then 'timed out' when 'blocked' then 'was blocked' when 'cancelled' then 'was cancelled'
                                   else job.status end;
  open_ turns;
  left_ turns[] := '{}';
begin
  for open_ in
    select t.* from turns t where t.job_id = job.id and t.state in ('pending', 'acknowledged') order by t.seq
  loop
    if open_.acknowledged_at is not null and open_.run_id = last_run then      -- also of a lost run whose outcome has arrived
      perform end_turn(open_, 'ended', 'run_ended', format('its agent had it, and the job %s', ended_so));
    elsif open_.kind = 'interrupt' then
      perform end_turn(open_, 'ended', 'run_ended', format('the job %s', ended_so));
    elsif job.status = 'cancelled' or job.started_at is null then
      perform end_turn(open_, 'cancelled', null, format('the job %s', ended_so));
    else
      left_ := left_ || open_;
    end if;
  end loop;
  if cardinality(left_) > 0 then
    perform follow_up(job, left_);
  end if;
end $$;

-- What nobody has heard becomes one job, in the order in which it was said, that goes on with the same conversation. If there can be no
-- such job, the turns say why.
create or replace function leasehold.follow_up(job leasehold.jobs, unheard leasehold.turns[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  next_ jobs := job;
  made bigint;
  wrong text;
begin
  next_.prompt := (select string_agg(u.text, e'\n\n' order by u.seq) from unnest(unheard) u);
  next_.session_key := coalesce(job.session_key, 'job:' || job.id);      -- and what that has become, whatever the job began with
  next_.session := null;
  next_.new_session := false;
  next_.conflict_policy := case job.conflict_policy when 'allow' then 'allow' else 'defer' end;
  next_.idempotency_key := null;
  next_.run_at := null;
  begin
    made := (select p.job_id from put_job(next_) p);
    perform note(made, job.tenant, null, 'follow_up', format('what the agent of job %s had not heard', job.id),
                 jsonb_build_object('job', job.id, 'turns', (select jsonb_agg(u.id order by u.seq) from unnest(unheard) u)));
  exception when sqlstate 'LH000' then                                   -- any of ours: its agent was retired, a budget refuses
    wrong := sqlerrm;
  end;
  perform end_turn(u, case when made is null then 'cancelled' else 'ended' end, case when made is not null then 'follow_up' end,
                   coalesce('job ' || made || ' is asked for it', format('no job can be asked for it: %s', wrong)), made)
     from unnest(unheard) u
    order by u.seq;
end $$;

-- A job that has not begun joins another one: its turns do, too.
create or replace function leasehold.move_turns(from_job bigint, target leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  open_ turns;
begin
  for open_ in
    select t.* from turns t where t.job_id = from_job and t.state in ('pending', 'acknowledged') order by t.seq
  loop
    perform add_turn(target, open_.kind, open_.text, null, open_.payload_hash, open_.actor);
    perform end_turn(open_, 'ended', 'moved', format('job %s does what its job was asked', target.id), target.id);
  end loop;
end $$;
