-- Every trigger in one place, made anew only when this text changes: making one locks its table. All locks are taken first, and
-- the migrator gives way after 100 ms: a worker in the middle of a call never finds itself in a deadlock with us.

lock table leasehold.jobs, leasehold.runs, leasehold.workers, leasehold.schedules, leasehold.budgets, leasehold.thread_moves,
           leasehold.turns
  in share row exclusive mode;
lock table leasehold.agents, leasehold.tenants, leasehold.queues, leasehold.arrivals, leasehold.holds, leasehold.hosts, leasehold.repositories,
           leasehold.cluster in access exclusive mode;

create or replace trigger a_statement
  before insert on leasehold.jobs
  for each statement execute function leasehold.jobs_before_statement();

create or replace trigger b_protected
  before insert on leasehold.jobs
  for each row
  when (new.status is distinct from 'queued'
        or new.due is distinct from true
        or new.lane is distinct from 0
        or new.attempts is distinct from 0
        or new.interruptions is distinct from 0
        or new.losses is distinct from 0
        or new.reason is not null
        or new.message is not null
        or new.result is not null
        or new.cancel_requested_at is not null
        or new.cancel_requested_by is not null
        or new.cancel_requested_reason is not null
        or new.request_hash is not null
        or new.created_at is not null
        or new.updated_at is not null
        or new.started_at is not null
        or new.finished_at is not null
        or new.waits_until is not null
        or new.coalesced is distinct from 0
        or new.schedule_id is not null
        or new.rank is distinct from '-infinity')
  execute function leasehold.jobs_refuse_protected();

create or replace trigger c_normalise
  before insert on leasehold.jobs
  for each row execute function leasehold.jobs_before_insert();

create or replace trigger d_effects
  after insert on leasehold.jobs
  referencing new table as fresh
  for each statement execute function leasehold.jobs_after_insert();

create or replace trigger guard
  before update of status on leasehold.jobs
  for each row
  when (old.status is distinct from new.status)
  execute function leasehold.check_transition('job');

create or replace trigger guard
  before update of status on leasehold.runs
  for each row
  when (old.status is distinct from new.status)
  execute function leasehold.check_transition('run');

create or replace trigger guard
  before update of state on leasehold.workers
  for each row
  when (old.state is distinct from new.state)
  execute function leasehold.check_transition('worker');

create or replace trigger normalise
  before insert or update on leasehold.agents
  for each row execute function leasehold.agents_before_write();

create or replace trigger keep_if_needed
  before delete on leasehold.agents
  for each row execute function leasehold.agents_before_delete();

-- The bell, at commit. Whatever makes work leaves an arrival: an insert, a retry, a requeue, a promotion.
drop trigger if exists ring on leasehold.arrivals;
create constraint trigger ring
  after insert on leasehold.arrivals
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

-- A pause lifted or a limit raised makes room.
drop trigger if exists ring on leasehold.agents;
create constraint trigger ring
  after insert or update or delete on leasehold.agents
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

drop trigger if exists ring on leasehold.tenants;
create constraint trigger ring
  after insert or update or delete on leasehold.tenants
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

drop trigger if exists ring on leasehold.queues;
create constraint trigger ring
  after insert or update or delete on leasehold.queues
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

-- Limits. A lane's order follows run_at and priority wherever they change; whatever may make room leaves a note for the claim and rings.
-- The notes themselves do not ring: the end of a run rings if it has made room for others, see settle_job().

create or replace trigger rank
  before update of run_at, priority on leasehold.jobs
  for each row
  when (old.run_at is distinct from new.run_at or old.priority is distinct from new.priority)
  execute function leasehold.jobs_rank();

drop trigger if exists ring on leasehold.arrivals;
create constraint trigger ring
  after insert on leasehold.arrivals
  deferrable initially deferred
  for each row
  when ((new.lane is not null or new.key is not null) and leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

create or replace trigger rank
  after insert or update of ageing or delete on leasehold.queues
  for each row execute function leasehold.queues_rank();

create or replace trigger note
  after insert or update or delete on leasehold.agents
  for each row execute function leasehold.note_of_room();
create or replace trigger note
  after insert or update or delete on leasehold.tenants
  for each row execute function leasehold.note_of_room();
create or replace trigger note
  after insert or update or delete on leasehold.queues
  for each row execute function leasehold.note_of_room();
create or replace trigger note
  after insert or update or delete on leasehold.repositories
  for each row execute function leasehold.note_of_room();
create or replace trigger note
  after update of scope, name, until, stagger or delete on leasehold.holds
  for each row execute function leasehold.note_of_room();

drop trigger if exists ring on leasehold.holds;
create constraint trigger ring
  after update or delete on leasehold.holds
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

drop trigger if exists ring on leasehold.repositories;
create constraint trigger ring
  after insert or update or delete on leasehold.repositories
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

drop trigger if exists ring on leasehold.hosts;
create constraint trigger ring
  after insert or update or delete on leasehold.hosts
  deferrable initially deferred
  for each row
  when (leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

drop trigger if exists ring on leasehold.cluster;
create constraint trigger ring
  after update on leasehold.cluster
  deferrable initially deferred
  for each row
  when (old.max_running is distinct from new.max_running and leasehold.first_of_transaction())
  execute function leasehold.ring_at_commit();

-- Schedules: what users write is checked; functions that fire write other columns, and pass.
create or replace trigger normalise
  before insert or update of tenant, name, agent, prompt, cron, every, timezone, starts_at, missed, missed_most, jitter, enabled,
                             key, conflict_policy, queue, priority, thread, payload, context
  on leasehold.schedules
  for each row execute function leasehold.schedules_before_write();

create or replace trigger ring
  after insert or update of cron, every, timezone, starts_at, jitter, enabled, agent
  on leasehold.schedules
  for each statement execute function leasehold.ring_schedules();

-- room D, usage: a budget that refuses, a budget and its hold, the session that a run goes on with
create or replace trigger d_budget
  before insert on leasehold.jobs
  for each row
  when (current_setting('leasehold.refusing', true) = 'true')           -- jobs_before_statement() has just said so
  execute function leasehold.jobs_within_budget();

create or replace trigger normalise
  before insert or update on leasehold.budgets
  for each row execute function leasehold.budgets_before_write();

create or replace trigger effects
  after insert or update of amount_usd, on_unpriced or delete on leasehold.budgets
  for each row execute function leasehold.budgets_after_write();

create or replace trigger session
  before insert on leasehold.runs
  for each row execute function leasehold.runs_choose_session();

-- Threads follow their jobs, at commit. The conditions are compiled: a job without a thread pays a comparison.

create or replace trigger thread_born
  after insert on leasehold.jobs
  for each row
  when (new.thread is not null)
  execute function leasehold.jobs_move_thread();

create or replace trigger thread_moved
  after update of status on leasehold.jobs
  for each row
  when (new.thread is not null and old.status is distinct from new.status)
  execute function leasehold.jobs_move_thread();

create or replace trigger thread_left
  after delete on leasehold.jobs
  for each row
  when (old.thread is not null and old.finished_at is null)
  execute function leasehold.jobs_move_thread();

drop trigger if exists project on leasehold.thread_moves;
create constraint trigger project
  after insert on leasehold.thread_moves
  deferrable initially deferred
  for each row
  when (leasehold.first_move_of_transaction())
  execute function leasehold.threads_at_commit();

-- room turns: what was said to a job that ends has an end, too; it comes before the event of the job's end
create or replace trigger turns
  after update of status on leasehold.jobs
  for each row
  when (old.finished_at is null and new.finished_at is not null)
  execute function leasehold.jobs_end_turns();

-- Messages: what users say to a live run, and what nobody will ever hear.
create or replace trigger message_said
  after insert on leasehold.turns
  for each row
  when (new.kind <> 'interrupt')
  execute function leasehold.turns_are_messages();

create or replace trigger message
  after update of state, outcome, acknowledged_at, run_id, follow_up_job on leasehold.turns
  for each row
  when (new.kind <> 'interrupt')
  execute function leasehold.turns_are_messages();

create or replace trigger messages_left
  after update of finished_at on leasehold.jobs
  for each row
  when (old.finished_at is null and new.finished_at is not null)
  execute function leasehold.jobs_leave_messages();

-- Workspaces. What rows may say of them is checked after everything else of theirs; the end of a run lets go, the end of a job decides.

create or replace trigger normalise_workspace
  before insert or update on leasehold.agents
  for each row execute function leasehold.agents_check_workspace();

create or replace trigger c_workspace
  before insert on leasehold.jobs
  for each row
  when (new.branch is not null or new.base_branch is not null or new.use_repository is not true or new.env_file_path is not null
        or new.materialize_env_file is not null)
  execute function leasehold.jobs_check_workspace();

create or replace trigger workspace
  after update of status, unkillable_since on leasehold.runs
  for each row
  when ((new.status = 'ended' and old.status <> 'ended') or (new.unkillable_since is not null and old.unkillable_since is null))
  execute function leasehold.runs_release_workspace();

create or replace trigger workspace
  after update of status on leasehold.jobs
  for each row
  when (new.finished_at is not null and old.finished_at is null)
  execute function leasehold.jobs_leave_workspace();

-- Sessions: a version for whoever shows them.
create or replace trigger version
  before update on leasehold.sessions
  for each row
  when ((old.backend_session_id, old.poisoned_reason, old.epoch, old.kind, old.host_id, old.path)
        is distinct from (new.backend_session_id, new.poisoned_reason, new.epoch, new.kind, new.host_id, new.path))
  execute function leasehold.sessions_new_version();
