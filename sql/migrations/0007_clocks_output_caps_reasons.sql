-- breaking
-- Clocks and output caps of agents, what a run's daemon must remember of its output, trees that do not die, and the retry
-- policy as columns of `reasons`. Older daemons do not know the longer answer of read_runs().

alter table leasehold.agents
  add column queue_timeout        interval constraint agents_queue_timeout check (queue_timeout > interval '0'),
  add column spawn_timeout        interval not null default '1 minute' constraint agents_spawn_timeout check (spawn_timeout > interval '0'),
  add column first_output_timeout interval constraint agents_first_output_timeout check (first_output_timeout > interval '0'),
  add column idle_timeout         interval constraint agents_idle_timeout check (idle_timeout > interval '0'),
  add column tool_idle_timeout    interval constraint agents_tool_idle_timeout check (tool_idle_timeout > interval '0'),
  add column linger_timeout       interval not null default '30 seconds' constraint agents_linger_timeout check (linger_timeout > interval '0'),
  add column output_head          bigint not null default 8388608 constraint agents_output_head check (output_head > 0),
  add column output_tail          bigint not null default 1048576 constraint agents_output_tail check (output_tail > 0),
  add column output_limit         bigint constraint agents_output_limit check (output_limit > 0),
  add column events_limit         int not null default 100000 constraint agents_events_limit check (events_limit > 0);

alter table leasehold.jobs
  add column waits_until timestamptz;                   -- queue_timeout of its agent, from when it may run; null: for ever
create index jobs_waiting_until on leasehold.jobs (waits_until) where waits_until is not null and status in ('queued', 'deferred');

alter table leasehold.runs
  add column checkpoint       jsonb,                    -- where a daemon that takes the run up may go on reading its output
  add column suspected_at     timestamptz,
  add column unkillable_since timestamptz;              -- its tree survived SIGKILL: the job must not run elsewhere

alter table leasehold.reasons
  drop column retries,
  add column follows text not null default 'stop' constraint reasons_follows check (follows in ('again', 'backoff', 'park', 'stop')),
  add column park interval constraint reasons_park check ((park is not null) = (follows = 'park'));

-- their text in functions/ has another answer, or more arguments, now
drop function if exists leasehold.read_runs(bigint, uuid, bigint[]);
drop function if exists leasehold.settle_late(leasehold.runs, text, text, text, int, int, jsonb);
