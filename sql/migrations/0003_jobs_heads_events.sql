-- What users ask for (jobs), the narrow hot row of each job (heads), and what happened to it (events).
--
-- `heads` is event counter, lock and fence in one: whoever writes about a job locks its head, takes the next numbers
-- and proves by (run_id, run_token) on the locked row that it still speaks for the live run.
-- Lock order everywhere: worker, jobs (ascending), heads (ascending), runs, the rest.

create table leasehold.jobs (
  id               bigint generated always as identity primary key,
  tenant           text not null,
  project          text,
  queue            text not null default 'default',
  agent            text not null,                      -- no foreign key: it would share-lock one hot row; agents.sql guards
  kind             text not null default 'task',
  title            text,
  prompt           text not null,
  payload          jsonb not null default '{}',
  priority         int not null default 0,
  run_at           timestamptz not null,
  concurrency_key  text,
  idempotency_key  text,
  request_hash     bytea,
  max_attempts     int not null default 1,
  max_losses       int not null default 3,
  labels           jsonb not null default '{}',
  -- from here on only functions write
  status           text not null default 'queued',
  due              boolean not null default true,      -- false: run_at lies ahead; the claim sets it when the time has come
  lane             bigint not null default 0,          -- hash of (queue, tenant, agent)
  reason           text,
  message          text,
  result           jsonb,
  attempts         int not null default 0,             -- used up; counted when a run ends
  interruptions    int not null default 0,             -- runs that ended without using an attempt
  losses           int not null default 0,             -- of these, runs whose worker was lost
  cancel_requested_at     timestamptz,
  cancel_requested_by     text,
  cancel_requested_reason text,
  created_at       timestamptz not null,
  updated_at       timestamptz not null,
  started_at       timestamptz,
  finished_at      timestamptz,
  constraint jobs_status check (status in
    ('queued', 'deferred', 'running', 'waiting', 'succeeded', 'failed', 'blocked', 'timed_out', 'cancelled')),
  constraint jobs_finished_when_ended check
    ((finished_at is not null) = (status in ('succeeded', 'failed', 'blocked', 'timed_out', 'cancelled'))),
  constraint jobs_priority check (priority between 0 and 1000),
  constraint jobs_max_attempts check (max_attempts between 1 and 1000),
  constraint jobs_max_losses check (max_losses between 1 and 1000),
  constraint jobs_counters check (attempts >= 0 and interruptions >= losses and losses >= 0),
  constraint jobs_objects check (jsonb_typeof(payload) = 'object' and jsonb_typeof(labels) = 'object')
) with (fillfactor = 85);

create index jobs_claim on leasehold.jobs (lane, priority desc, run_at, id) where status = 'queued' and due;
create index jobs_ahead on leasehold.jobs (run_at) where status = 'queued' and not due;
create unique index jobs_idempotency on leasehold.jobs (tenant, idempotency_key) where idempotency_key is not null;
create unique index jobs_one_live_per_key on leasehold.jobs (tenant, concurrency_key)
  where concurrency_key is not null and status in ('queued', 'running', 'waiting');
create index jobs_deferred on leasehold.jobs (tenant, concurrency_key, priority desc, run_at, id) where status = 'deferred';
create index jobs_cancelling on leasehold.jobs (id) where cancel_requested_at is not null and status in ('running', 'waiting');
create index jobs_finished on leasehold.jobs (finished_at) where finished_at is not null;

create table leasehold.heads (
  job_id    bigint primary key,
  seq       int not null,
  run_id    bigint,
  run_token uuid,
  mark      bigint not null default -1                 -- the highest mark accepted from the live run
) with (fillfactor = 60);

create table leasehold.events (
  job_id  bigint not null,
  seq     int not null,                                -- 1, 2, 3, ... without gaps
  run_id  bigint,
  tenant  text not null,
  at      timestamptz not null default leasehold.clock(),
  level   text not null default 'info',
  phase   text,
  kind    text not null,
  message text,
  data    jsonb,
  xid     xid8 not null default pg_current_xact_id(),  -- for readers of everybody's events; see leasehold.changes()
  primary key (job_id, seq),
  constraint events_level check (level in ('debug', 'info', 'warning', 'error'))
);
create index events_changes on leasehold.events (xid, job_id, seq);
