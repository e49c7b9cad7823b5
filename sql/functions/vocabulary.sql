-- The two closed tables: why a run ended and what follows from it, and who may change which status to what.
-- Refilled whenever this text changes; read inside every transaction that ends a run or changes a status.

delete from leasehold.reasons;
insert into leasehold.reasons (reason, outcome, uses_attempt, retries, advice) values
  ('ok',                'succeeded',   true,  false, 'Nothing to do.'),
  ('exit_code',         'failed',      true,  true,  'The program ended with a non-zero exit code: read the end of its stderr.'),
  ('signal',            'failed',      true,  true,  'A signal ended the program: a crash, or somebody outside of Leasehold killed it.'),
  ('oom',               'failed',      true,  true,  'The memory limit killed it: raise limits.memory_max of the agent, or ask for less.'),
  ('agent_error',       'failed',      true,  true,  'The agent said itself that it failed: read its last error event.'),
  ('spawn_not_found',   'failed',      true,  false, 'There is no such program on the worker''s host: check command[1], the launcher and PATH.'),
  ('spawn_denied',      'failed',      true,  false, 'The worker''s user may not execute the program: check its mode and owner.'),
  ('spawn_failed',      'failed',      true,  true,  'The program could not be started: the message says what the system answered.'),
  ('workspace_missing', 'failed',      true,  false, 'The directory in agents.workspace does not exist on the worker''s host.'),
  ('workspace_denied',  'failed',      true,  false, 'The worker''s user may not enter the directory in agents.workspace.'),
  ('disk_full',         'failed',      true,  true,  'The state directory has no room: free some, or move LEASEHOLD_STATE_DIR.'),
  ('daemon_error',      'failed',      true,  true,  'A mistake of Leasehold: please report it with the daemon''s log of this run.'),
  ('question',          'blocked',     true,  false, 'The agent needs an answer: put it into the prompt and retry.'),
  ('total',             'timed_out',   true,  true,  'It ran longer than agents.total_timeout: raise it, or ask for less.'),
  ('cancelled',         'cancelled',   true,  false, 'Somebody asked for it: see cancel_requested_by and _reason.'),
  ('stopped',           'interrupted', false, false, 'The daemon was stopped; the job runs again by itself.'),
  ('daemon_restart',    'interrupted', false, false, 'The daemon was restarted; the job runs again by itself.'),
  ('daemon_restart',    'lost',        false, false, 'The daemon was restarted and its keeper no longer had the run; it runs again by itself.'),
  ('host_reboot',       'interrupted', false, false, 'The host was rebooted; the job runs again by itself.'),
  ('host_reboot',       'lost',        false, false, 'The host was rebooted; the job runs again by itself.'),
  ('lease_lost',        'interrupted', false, false, 'The daemon could not renew its lease in time and stopped the run; it runs again by itself.'),
  ('lease_lost',        'lost',        false, false, 'The daemon could not renew its lease in time and stopped the run; it runs again by itself.'),
  ('keeper_lost',       'interrupted', false, false, 'The keeper process ended and its agents with it; the job runs again by itself.'),
  ('keeper_lost',       'lost',        false, false, 'The keeper process ended and its agents with it; the job runs again by itself.'),
  ('worker_lost',       'lost',        false, false, 'The worker stopped renewing its lease; the job runs again elsewhere by itself.'),
  ('crash_cap',         'failed',      false, false, 'It lost its worker max_losses times, so it may be what kills them. Look before you retry it.');

delete from leasehold.transitions;
insert into leasehold.transitions (entity, from_status, to_status, actor)
values
  ('job', '',         'queued',    'insert'),
  ('job', '',         'deferred',  'insert'),
  ('job', 'deferred', 'queued',    'promote'),
  ('job', 'queued',   'running',   'claim'),
  ('job', 'queued',   'cancelled', 'cancel'),
  ('job', 'deferred', 'cancelled', 'cancel')
union all
select 'job', live.status, ended.status, ending.actor
  from unnest(array['running', 'waiting']) live (status),
       unnest(array['queued', 'failed', 'cancelled']) ended (status),
       unnest(array['finish', 'reap', 'adopt']) ending (actor)
union all
select 'job', live.status, ended.status, 'finish'
  from unnest(array['running', 'waiting']) live (status),
       unnest(array['succeeded', 'blocked', 'timed_out']) ended (status)
union all
select 'job', 'queued', ended.status, 'late'
  from unnest(array['succeeded', 'failed', 'blocked', 'timed_out', 'cancelled']) ended (status)
union all
select 'job', ended.status, again.status, 'retry'
  from unnest(array['failed', 'blocked', 'timed_out', 'cancelled']) ended (status),
       unnest(array['queued', 'deferred']) again (status)
union all
select 'run', live.status, 'ended', ending.actor
  from unnest(array['starting', 'running', 'stopping']) live (status),
       unnest(array['finish', 'reap', 'adopt']) ending (actor)
union all
values
  ('run',    '',         'starting', 'claim'),
  ('run',    'starting', 'running',  'start'),
  ('worker', '',         'alive',    'register'),
  ('worker', 'alive',    'closed',   'adopt'),
  ('worker', 'alive',    'closed',   'deregister'),
  ('worker', 'alive',    'lost',     'reap');

-- The guard on jobs, runs and workers. Whoever changes a status names itself in a setting, just around that one statement. (A SET
-- clause of the function would say it better, but only a superuser may give one for a setting of ours.)
create or replace function leasehold.check_transition() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  entity text := tg_argv[0];
  actor_ text := coalesce(current_setting('leasehold.actor', true), '');
  from_ text;
  to_ text;
begin
  if entity = 'worker' then
    from_ := old.state;
    to_ := new.state;
  else
    from_ := old.status;
    to_ := new.status;
  end if;
  if exists (select from transitions t
              where t.entity = tg_argv[0]
                and t.from_status = from_
                and t.to_status = to_
                and t.actor = actor_) then
    return new;
  end if;
  raise exception '% % cannot go from "%" to "%" %', entity, old.id, from_, to_,
                  case actor_ when '' then 'by a plain update' else format('by %s', actor_) end
    using errcode = 'LH027',
          hint = case
            when entity = 'job' and to_ = 'cancelled' then format('Use: SELECT leasehold.cancel(%s);', old.id)
            when entity = 'job' and to_ in ('queued', 'deferred') then format('Use: SELECT leasehold.retry(%s);', old.id)
            when entity = 'job' then 'Only claim() starts a job and only finish_run(), reap() or adopt() end it.'
            when entity = 'run' then 'Only claim(), start_run(), finish_run(), reap() and adopt() change a run.'
            else 'Only adopt(), deregister_worker() and reap() end a worker.'
          end;
end $$;
