-- breaking
-- What is said to agents while they work (turns), what they ask of humans (interactions), and who may be answered by rule
-- (answer_policies). Older daemons would tell no agent, and put back functions that do not know of waiting runs.

-- What an adapter can; functions/adapters.sql fills it.
create table leasehold.adapters (
  name          text primary key,
  converses     boolean not null,                      -- takes another prompt while its run lives
  steerable     boolean not null,                      -- takes words in the middle of its work
  interruptible boolean not null                       -- stops what it does, and its run lives on
);

create table leasehold.turns (
  id              bigint generated always as identity primary key,
  tenant          text not null,
  job_id          bigint not null,
  run_id          bigint,                              -- whose agent has, or had, it
  seq             int not null,                        -- 1, 2, 3, ... of this job, without gaps
  kind            text not null constraint turns_kind check (kind in ('prompt', 'steer', 'interrupt')),
  text            text,
  actor           text not null,
  idempotency_key text,                                -- of this job
  payload_hash    bytea not null,
  deliverable     boolean not null,                    -- its agent takes such a one; false: it becomes a job when this one is over
  state           text not null default 'pending' constraint turns_state check (state in ('pending', 'acknowledged', 'ended', 'cancelled')),
  outcome         text constraint turns_outcome check (outcome in ('done', 'refused', 'run_ended', 'follow_up', 'moved')),
  why             text,
  follow_up_job   bigint,
  created_at      timestamptz not null default leasehold.clock(),
  acknowledged_at timestamptz,                         -- when an agent was given it
  ended_at        timestamptz,
  constraint turns_seq unique (job_id, seq),
  constraint turns_text check (kind = 'interrupt' or text is not null),
  constraint turns_ended check ((ended_at is not null) = (state in ('ended', 'cancelled'))),
  constraint turns_outcome_at_the_end check ((outcome is not null) = (state = 'ended'))
) with (fillfactor = 80);
create unique index turns_idempotency on leasehold.turns (job_id, idempotency_key) where idempotency_key is not null;
create index turns_open on leasehold.turns (job_id, seq) where state in ('pending', 'acknowledged');
create index turns_pending on leasehold.turns (job_id) where state = 'pending' and deliverable;
create index turns_follow_up on leasehold.turns (follow_up_job) where follow_up_job is not null;

create table leasehold.interactions (
  id           bigint generated always as identity primary key,
  tenant       text not null,
  job_id       bigint not null,
  run_id       bigint not null,
  external_id  text not null,                          -- the agent's own; known ones are never opened again
  kind         text not null constraint interactions_kind check (kind in ('question', 'permission')),
  prompt       text,                                   -- what it asks, in words
  options      jsonb not null default '[]',            -- of a permission: [{id, name, kind}]
  questions    jsonb not null default '[]',            -- of a question: [{id, header, question, options, multiple, free_text, secret}]
  tool         text,
  input        jsonb,                                  -- what it would do, abridged
  status       text not null default 'pending'
    constraint interactions_status check (status in ('pending', 'answered', 'expired', 'withdrawn', 'closed')),
  response     jsonb,                                  -- {decision, option, message, answers}
  answered_by  text,
  asked_at     timestamptz not null default leasehold.clock(),
  answered_at  timestamptz,
  expires_at   timestamptz,                            -- null: it may take as long as it takes
  asked        int not null default 1,                 -- how often
  delivered_at timestamptz,                            -- when its agent was given the answer
  to_deliver   boolean not null default false,         -- it has an answer that its live agent has not got
  closed_at    timestamptz,                            -- when nobody could answer any more
  constraint interactions_once unique (run_id, external_id),
  constraint interactions_answered check ((answered_at is not null) = (status in ('answered', 'expired'))),
  constraint interactions_closed check ((closed_at is null) = (status = 'pending'))
) with (fillfactor = 80);
create index interactions_pending on leasehold.interactions (run_id) where status = 'pending';
create index interactions_open on leasehold.interactions (tenant, id) where status = 'pending';
create index interactions_expiry on leasehold.interactions (expires_at, id) where status = 'pending' and expires_at is not null;
create index interactions_to_deliver on leasehold.interactions (run_id) where to_deliver;
create index interactions_of_job on leasehold.interactions (job_id, id);

-- Who is answered by rule, at once. The most exact rule counts, see policy_for().
create table leasehold.answer_policies (
  id         bigint generated always as identity primary key,
  agent      text,                                     -- null: any
  kind       text not null default 'permission' constraint answer_policies_kind check (kind in ('question', 'permission')),
  tool       text,                                     -- a pattern as of LIKE; null: any
  decision   text not null constraint answer_policies_decision check (decision in ('allow', 'deny')),
  message    text,                                     -- for the agent
  created_at timestamptz not null default leasehold.clock(),
  constraint answer_policies_tool check (tool !~ '(^|[^\\])(\\\\)*\\$'),      -- LIKE fails over a backslash at the end
  constraint answer_policies_one unique nulls not distinct (agent, kind, tool),
  constraint answer_policies_questions check (kind = 'permission' or (decision = 'deny' and tool is null))      -- what would it say?
);

alter table leasehold.wakeups
  add column turn_id bigint;                           -- the ask was told to the agent at work

-- A run that waits for a human may give up its place: it counts for no limit then.
alter table leasehold.runs
  add column released boolean not null default false;
drop index leasehold.runs_live;
create index runs_live on leasehold.runs (worker_id) include (id, job_id, tenant, agent, queue, repository, host_id, released)
  where ended_at is null;

alter table leasehold.turns enable row level security;
alter table leasehold.interactions enable row level security;
create policy tenants on leasehold.turns to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.interactions to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy everything on leasehold.turns to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.interactions to leasehold_admin, leasehold_worker using (true);
