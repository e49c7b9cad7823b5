-- Who does the work (workers), each attempt at it (runs), and the bytes the agents wrote (output).

create table leasehold.workers (
  id               bigint generated always as identity primary key,
  token            uuid not null default gen_random_uuid(),
  instance         text not null,
  host_id          text not null,
  boot_id          text not null,
  keeper_id        text not null,                      -- random, kept in the keeper's state directory: tells cloned images apart
  version          text not null,
  capacity         int not null constraint workers_capacity check (capacity >= 0),
  queues           text[],                             -- null: all
  lease            interval not null constraint workers_lease check (lease > interval '0'),
  state            text not null default 'alive',
  lease_expires_at timestamptz not null,
  renewals         bigint not null default 0,          -- a reaper must have seen this stand still for one lease, on its own clock
  started_at       timestamptz not null default leasehold.clock(),
  ended_at         timestamptz,
  constraint workers_state check (state in ('alive', 'closed', 'lost')),
  constraint workers_ended check ((ended_at is null) = (state = 'alive'))
) with (fillfactor = 20);                              -- renewed in place, for ever
create index workers_alive on leasehold.workers (id) where state = 'alive';
create index workers_of_instance on leasehold.workers (instance, keeper_id, id);

-- The id is the fence, together with the token: a failover can give the same id twice.
create table leasehold.runs (
  id           bigint generated always as identity primary key,
  token        uuid not null default gen_random_uuid(),
  job_id       bigint not null,
  attempt      int not null,                           -- 1, 2, 3, ... of this job, interrupted and lost ones included
  worker_id    bigint not null,
  tenant       text not null,
  queue        text not null,
  agent        text not null,
  status       text not null default 'starting',
  phase        text,
  outcome      text,
  reason       text,
  message      text,
  exit_code    int,
  signal       int,
  result       jsonb,
  identity     jsonb,                                  -- of the process: pid, start time, boot id, containment, cgroup
  resources    jsonb,                                  -- what it used
  output       jsonb,                                  -- per stream: bytes, sha256
  late_outcome jsonb,                                  -- what really became of a run that was given up as lost; written once
  claimed_at   timestamptz not null,
  started_at   timestamptz,
  ended_at     timestamptz,
  constraint runs_status check (status in ('starting', 'running', 'stopping', 'ended')),
  constraint runs_ended check ((ended_at is not null) = (status = 'ended')),
  constraint runs_outcome check (outcome in
    ('succeeded', 'failed', 'blocked', 'timed_out', 'cancelled', 'interrupted', 'lost')),
  constraint runs_outcome_at_the_end check ((outcome is not null) = (status = 'ended')),
  constraint runs_attempt unique (job_id, attempt)
) with (fillfactor = 85);
create unique index runs_one_live on leasehold.runs (job_id) where ended_at is null;
create index runs_live on leasehold.runs (worker_id) include (id, job_id, tenant, agent, queue) where ended_at is null;

create table leasehold.output (
  run_id      bigint not null,
  stream      text not null constraint output_stream check (stream in ('stdout', 'stderr')),
  byte_offset bigint not null constraint output_offset check (byte_offset >= 0),
  job_id      bigint not null,
  tenant      text not null,
  at          timestamptz not null default leasehold.clock(),
  bytes       bytea not null,
  primary key (run_id, stream, byte_offset)
);
