-- The story of a job in plain sentences, one a row, for somebody who has just been woken: what was asked, where it stands and
-- what it waits for (why_waits.sql), each attempt (why_run.sql), what it wrote last, what happens next and which command would change that.

create or replace function leasehold.why(job bigint) returns setof text
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  asked jobs;
begin
  select j.* into asked from jobs j where j.id = why.job;
  if asked.id is null or not may_act_for(asked.tenant) then
    perform refuse_unknown_job(why.job);
  end if;
  return query select printable(line, 1000) from why_asked(asked) line;
  return query select printable(line, 1000) from why_here(asked) line;
  return query select printable(line, 1000) from why_told_turns(asked) line;
  return query select printable(line, 1000) from why_history(asked) line;
  return query select printable(line, 1000) from why_output(asked) line;
  return query select printable(line, 1000) from why_next(asked) line;
end $$;

create or replace function leasehold.why_asked(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return next format('Job %s asks agent "%s": "%s"', job.id, job.agent, printable(coalesce(job.title, job.prompt), 200));
  return next format('It was inserted at %s for tenant "%s"%s, into queue "%s" with priority %s; %s may be used.',
                     spell_time(job.created_at), job.tenant, ', project "' || job.project || '"', job.queue, job.priority,
                     count_of(job.max_attempts, 'attempt'));
end $$;

-- Where it stands, and what it waits for.
create or replace function leasehold.why_here(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if job.status = 'queued' then
    return next 'It is queued.';
    return query select why_queued(job);
  elsif job.status = 'deferred' then
    return query select why_deferred(job);
  elsif job.status in ('running', 'waiting') then
    return query select why_running(job);
  else
    return next format('It %s at %s, %s after it was inserted%s.',
                       case job.status when 'timed_out' then 'timed out' when 'blocked' then 'was blocked' when 'cancelled' then 'was cancelled'
                         else job.status end,
                       spell_time(job.finished_at), spell(job.finished_at - job.created_at),
                       case when job.status <> 'succeeded' then ': ' || job.reason || coalesce(', ' || job.message, '') else '' end);
    if job.cancel_requested_at is not null then
      return next why_cancelled(job);
    end if;
  end if;
end $$;

create or replace function leasehold.why_cancelled(job leasehold.jobs) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return format('"%s" asked for its end at %s%s.', job.cancel_requested_by, spell_time(job.cancel_requested_at),
                ': "' || printable(job.cancel_requested_reason, 200) || '"');
end $$;

create or replace function leasehold.why_running(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  live runs;
  holder workers;
  renewed timestamptz;
begin
  select r.* into live from runs r where r.job_id = job.id and r.ended_at is null;
  select w.* into holder from workers w where w.id = live.worker_id;
  renewed := holder.lease_expires_at - holder.lease;
  return next format('It is %s: attempt %s is %s%s.', job.status, live.attempt, live.status, ' (' || live.phase || ')');
  if holder.state <> 'alive' then
    return next format('Worker %s is %s: another worker ends the run as lost, and the job runs again.', holder.id, holder.state);
  elsif holder.lease_expires_at <= clock() then
    return next format('The lease of worker %s has run out at %s: its processes have been killed by now, and another worker ends the '
                       'run as lost when it has seen no renewal for %s.', holder.id, spell_time(holder.lease_expires_at), spell(holder.lease));
  else
    return next format('The lease of worker %s was renewed at %s and ends at %s%s.', holder.id, spell_time(renewed),
                       spell_time(holder.lease_expires_at),
                       case when holder.lease_expires_at - clock() < holder.lease / 2
                         then ': renewals fail, see the daemon''s log; its processes are killed before that' else '' end);
  end if;
  return query select why_asks(live.id);
  if job.cancel_requested_at is not null then
    return next why_cancelled(job);
  end if;
end $$;
