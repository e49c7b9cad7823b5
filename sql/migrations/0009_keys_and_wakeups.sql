-- breaking
-- Conflict policies in the index that keeps keys apart, every ask as a row, and agents that are not, or no longer, to be asked.
-- Older daemons do not know the longer answer of read_runs().

drop index leasehold.jobs_one_live_per_key;
create unique index jobs_one_live_per_key on leasehold.jobs (tenant, concurrency_key)
  where concurrency_key is not null and conflict_policy <> 'allow' and status in ('queued', 'running', 'waiting');
create index jobs_coalescing on leasehold.jobs (tenant, concurrency_key, agent, run_at, id)
  where status = 'deferred' and conflict_policy = 'coalesce';

alter table leasehold.agents
  drop constraint agents_status,
  add constraint agents_status check (status in ('enabled', 'paused', 'pending_approval', 'retired')),
  add column wake_on_schedule boolean not null default true,
  add column wake_on_demand   boolean not null default true;

-- Whoever asks leaves a row, whatever becomes of the ask.
create table leasehold.wakeups (
  id              bigint generated always as identity primary key,
  tenant          text not null,
  agent           text not null,
  key             text,                                -- the concurrency key, given or derived
  source          text not null default 'on_demand',
  trigger         text,
  actor_type      text,
  actor           text not null,
  reason          text,                                -- the asker's
  context         jsonb not null default '{}',         -- what the job was given
  payload         jsonb not null default '{}',
  idempotency_key text,
  request_hash    bytea,
  disposition     text not null,
  why             text,                                -- ours
  job_id          bigint,                              -- the job it led to
  at              timestamptz not null default leasehold.clock(),
  decided_at      timestamptz,                         -- null: it waits, deferred
  constraint wakeups_source check (source in ('schedule', 'assignment', 'on_demand', 'automation')),
  constraint wakeups_trigger check (trigger in ('manual', 'ping', 'callback', 'system')),
  constraint wakeups_actor_type check (actor_type in ('user', 'agent', 'system')),
  constraint wakeups_disposition check (disposition in
    ('accepted', 'coalesced', 'deferred', 'promoted', 'existing', 'skipped', 'rejected')),
  constraint wakeups_decided check ((decided_at is null) = (disposition = 'deferred')),
  constraint wakeups_objects check (jsonb_typeof(context) = 'object' and jsonb_typeof(payload) = 'object')
);
create unique index wakeups_idempotency on leasehold.wakeups (tenant, idempotency_key) where idempotency_key is not null;
create index wakeups_job on leasehold.wakeups (job_id) where job_id is not null;
create index wakeups_agent on leasehold.wakeups (tenant, agent, id);

alter table leasehold.wakeups enable row level security;
create policy tenants on leasehold.wakeups to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy everything on leasehold.wakeups to leasehold_admin, leasehold_worker using (true);

-- what wake() answers; `reason` is ours here, and the asker's among its arguments
create type leasehold.wake_answer as (wakeup_id bigint, disposition text, job_id bigint, reason text);
