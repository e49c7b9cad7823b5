-- The two closed tables: why a run ended and what follows for its job, and who may change which status to what.
-- `follows`: again at once | backoff, if attempts are left | park for so long, then again | stop.
-- Refilled whenever this text changes; read inside every transaction that ends a run or changes a status.

delete from leasehold.reasons;
insert into leasehold.reasons (reason, outcome, uses_attempt, follows, park, advice) values
  ('ok',                'succeeded',   true,  'stop',    null,         'Nothing to do.'),
  ('linger',            'succeeded',   true,  'stop',    null,         'It gave its result and did not leave for agents.linger_timeout: look at what it leaves running.'),
  ('exit_code',         'failed',      true,  'backoff', null,         'The program ended with a non-zero exit code: read the end of its stderr.'),
  ('signal',            'failed',      true,  'backoff', null,         'A signal ended the program: a crash, or somebody outside of Leasehold killed it.'),
  ('oom',               'failed',      true,  'backoff', null,         'The memory limit killed it: raise limits.memory_max of the agent, or ask for less.'),
  ('agent_error',       'failed',      true,  'backoff', null,         'The agent said itself that it failed: read its last error event.'),
  ('output_limit',      'failed',      true,  'stop',    null,         'It wrote more than agents.output_limit: raise it, or make the agent say less.'),
  ('protocol',          'failed',      true,  'backoff', null,         'The agent broke its own protocol: read its raw output, check its version.'),
  ('empty_output',      'failed',      true,  'backoff', null,         'It ended well and said nothing: check its prompt, login and model.'),
  ('disagreement',      'failed',      true,  'backoff', null,         'Its result, exit code and work contradict each other: read the output before you trust any of them.'),
  ('session_rejected',  'failed',      true,  'backoff', null,         'The backend does not know the session any more: the next attempt begins a new one.'),
  ('session_evicted',   'failed',      false, 'stop',    null,         'What its session had kept was removed: SELECT leasehold.forget_session(agent, session_key), then retry; that begins a new one.'),
  ('context_overflow',  'failed',      true,  'stop',    null,         'The conversation is longer than the model reads: ask for less, or begin a new session.'),
  ('max_turns',         'failed',      true,  'stop',    null,         'It used all its turns: raise the agent''s limit, or ask for less.'),
  ('refusal',           'failed',      true,  'stop',    null,         'The model refused the task: change the prompt.'),
  ('auth',              'failed',      false, 'stop',    null,         'The agent''s login or key was refused: renew it, then retry.'),
  ('budget',            'blocked',     false, 'stop',    null,         'The budget is used up: raise it, then retry.'),
  ('question',          'blocked',     true,  'stop',    null,         'The agent needs an answer: put it into the prompt and retry.'),
  ('turn_interrupted',  'blocked',     false, 'stop',    null,         'Somebody interrupted its turn and asked for nothing else: retry it, or ask its session for something new.'),
  ('spawn_not_found',   'failed',      true,  'stop',    null,         'There is no such program on the worker''s host: check command[1], the launcher and PATH.'),
  ('spawn_denied',      'failed',      true,  'stop',    null,         'The worker''s user may not execute the program: check its mode and owner.'),
  ('spawn_failed',      'failed',      true,  'backoff', null,         'The program could not be started: the message says what the system answered.'),
  ('workspace_missing', 'failed',      true,  'stop',    null,         'The directory in agents.workspace does not exist on the worker''s host.'),
  ('workspace_denied',  'failed',      true,  'stop',    null,         'The worker''s user may not enter the directory in agents.workspace.'),
  ('workspace_failed',  'failed',      true,  'backoff', null,         'Its workspace could not be made ready: the message names the step and its last words, the run''s stderr has all of them.'),
  ('workspace_timeout', 'timed_out',   true,  'backoff', null,         'Its workspace was not ready within agents.prepare_timeout: raise it, or see which step of the run''s stderr is slow.'),
  ('workspace_busy',    'interrupted', false, 'park',    '1 minute',   'Another run has its branch or its conversation''s worktree, or that is quarantined: the message says which. It runs again by itself, after ever longer waits. A concurrency_key makes such jobs wait in line.'),
  ('config_failed',     'failed',      false, 'stop',    null,         'Its private configuration could not be made: the message says what is in the way.'),
  ('daemon_error',      'failed',      true,  'backoff', null,         'A mistake of Leasehold: please report it with the daemon''s log of this run.'),
  ('total',             'timed_out',   true,  'backoff', null,         'It ran longer than agents.total_timeout: raise it, or ask for less.'),
  ('idle',              'timed_out',   true,  'backoff', null,         'It was silent and idle for agents.idle_timeout: read its last output and the suspect event.'),
  ('first_output',      'timed_out',   true,  'backoff', null,         'It wrote nothing at all for agents.first_output_timeout: is it waiting for input, a login, the network?'),
  ('spawn',             'timed_out',   false, 'backoff', null,         'The keeper did not start it within agents.spawn_timeout: is the keeper running and its host well?'),
  ('queue',             'timed_out',   false, 'stop',    null,         'It waited longer than agents.queue_timeout: add workers, or raise the timeout.'),
  ('cancelled',         'cancelled',   true,  'stop',    null,         'Somebody asked for it: see cancel_requested_by and _reason.'),
  ('quota',             'interrupted', false, 'park',    '15 minutes', 'The account''s quota is used up; the job waits and runs again by itself.'),
  ('rate_limit',        'interrupted', false, 'park',    '1 minute',   'The provider asked to slow down; the job waits and runs again by itself.'),
  ('disk_full',         'interrupted', false, 'park',    '1 minute',   'The state directory has no room: free some, or move LEASEHOLD_STATE_DIR. The job runs again by itself.'),
  ('credential_busy',   'interrupted', false, 'park',    '1 minute',   'Another run has the credential of its agent; the job runs again by itself, after ever longer waits.'),
  ('stopped',           'interrupted', false, 'again',   null,         'The daemon was stopped; the job runs again by itself.'),
  ('daemon_restart',    'interrupted', false, 'again',   null,         'The daemon was restarted; the job runs again by itself.'),
  ('daemon_restart',    'lost',        false, 'again',   null,         'The daemon was restarted and its keeper no longer had the run; it runs again by itself.'),
  ('host_reboot',       'interrupted', false, 'again',   null,         'The host was rebooted; the job runs again by itself.'),
  ('host_reboot',       'lost',        false, 'again',   null,         'The host was rebooted; the job runs again by itself.'),
  ('lease_lost',        'interrupted', false, 'again',   null,         'The daemon could not renew its lease in time and stopped the run; it runs again by itself.'),
  ('lease_lost',        'lost',        false, 'again',   null,         'The daemon could not renew its lease in time and stopped the run; it runs again by itself.'),
  ('keeper_lost',       'interrupted', false, 'again',   null,         'The keeper process ended and its agents with it; the job runs again by itself.'),
  ('keeper_lost',       'lost',        false, 'again',   null,         'The keeper process ended and its agents with it; the job runs again by itself.'),
  ('worker_lost',       'lost',        false, 'again',   null,         'The worker stopped renewing its lease; the job runs again elsewhere by itself.'),
  ('unkillable',        'lost',        false, 'stop',    null,         'Its processes survived SIGKILL and its worker is gone: look at that host before you retry it.'),
  ('crash_cap',         'failed',      false, 'stop',    null,         'It lost its worker max_losses times, so it may be what kills them. Look before you retry it.'),
  ('agent_retired',     'failed',      false, 'stop',    null,         'Its agent was retired while it waited for its key: ask another one.'),
  ('coalesced',         'cancelled',   false, 'stop',    null,         'Another job of its key does what it was asked: the message names it.'),
  ('quota_cap',         'failed',      false, 'stop',    null,         'It met nothing but a used up quota or a rate limit 100 times in a row: look at the account, then retry.'),
  ('disk_cap',          'failed',      false, 'stop',    null,         'It met a full disk 10 times in a row, so it may be what fills it: look before you retry it.'),
  ('workspace_cap',     'blocked',     false, 'stop',    null,         'Its workspace was not free 300 times in a row, or 20 times because it is quarantined: the message names it and what frees it; then retry.'),
  ('credential_cap',    'blocked',     false, 'stop',    null,         'The credential of its agent was not free 300 times in a row: end the run that keeps it, or look at agents.credential_lock; then retry.'),
  ('session_poisoned',  'failed',      true,  'stop',    null,         'Its session is of no use any more, and a new one would do again what its tools have done: look at that, then retry. A retry begins a new session.');

-- What an agent may name as the reason of its own end, in a `result` line; see the adapters.
update leasehold.reasons
   set agent_may_say = true
 where (reason, outcome) in (
   ('quota', 'interrupted'), ('rate_limit', 'interrupted'), ('auth', 'failed'), ('context_overflow', 'failed'), ('session_rejected', 'failed'),
   ('max_turns', 'failed'), ('refusal', 'failed'), ('budget', 'blocked'), ('question', 'blocked'));

delete from leasehold.transitions;
insert into leasehold.transitions (entity, from_status, to_status, actor)
values
  ('job', '',         'queued',    'insert'),
  ('job', '',         'deferred',  'insert'),
  ('job', 'deferred', 'queued',    'promote'),
  ('job', 'queued',   'running',   'claim'),
  ('job', 'queued',   'cancelled', 'cancel'),
  ('job', 'deferred', 'cancelled', 'cancel'),
  ('job', 'deferred', 'cancelled', 'coalesce'),
  ('job', 'deferred', 'failed',    'promote'),
  ('job', 'deferred', 'cancelled', 'promote')
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
  ('job',    'running',  'waiting',  'ask'),
  ('job',    'waiting',  'running',  'answer'),
  ('run',    'starting', 'running',  'start'),
  ('run',    'starting', 'stopping', 'stop'),
  ('run',    'running',  'stopping', 'stop'),
  ('job',    'queued',   'timed_out', 'expire'),
  ('job',    'deferred', 'timed_out', 'expire'),
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
