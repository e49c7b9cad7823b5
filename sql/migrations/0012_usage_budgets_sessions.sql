-- breaking
-- What agents use (usage), what that may cost (budgets), and the conversations that a next attempt goes on with (sessions).
-- Older daemons do not know the longer answer of read_runs().

alter table leasehold.agents
  add column budget_usd numeric constraint agents_budget check (budget_usd > 0 and budget_usd < 1e12);      -- of each of its runs

alter table leasehold.runs
  add column input_tokens     bigint,                  -- null: never said
  add column output_tokens    bigint,
  add column cached_tokens    bigint,
  add column cost_usd         numeric,                 -- null: nothing of it has a price, which is not the same as 0
  add column unpriced         int not null default 0,  -- reports without a price
  add column budget_passed_at timestamptz,
  add column session_before   text,                    -- the backend's session that it was to go on with
  add column session_after    text,                    -- the one it said it was in
  add column conversation     bigint,                  -- the run in which that conversation began: its counters go on
  add column session_evicted  boolean not null default false,     -- what it needs is gone: it is not started
  add column poisoned         text;                    -- why nobody goes on with its session
create index runs_over_budget on leasehold.runs (worker_id) where ended_at is null and budget_passed_at is not null;

-- One row per report that added something. Sums of these are the totals; nothing else is.
create table leasehold.usage (
  run_id        bigint not null,
  seq           bigint not null,                       -- the place of the report in the run's stdout: a replay finds it
  job_id        bigint not null,
  tenant        text not null,
  agent         text not null,
  account       text not null,
  session       text not null,                         -- sessions.key
  provider      text not null,
  model         text not null,
  input_tokens  bigint not null constraint usage_input check (input_tokens >= 0),
  output_tokens bigint not null constraint usage_output check (output_tokens >= 0),
  cached_tokens bigint not null constraint usage_cached check (cached_tokens >= 0),
  cost_usd      numeric constraint usage_cost check (cost_usd >= 0 and cost_usd < 1e12),      -- null: unpriced
  at            timestamptz not null,
  primary key (run_id, seq)
);
create index usage_of_tenant on leasehold.usage (tenant, at);
create index usage_of_agent on leasehold.usage (agent, at);
create index usage_at on leasehold.usage (at);

-- What is left of usage whose job is gone: sums of a day. Whoever removes jobs adds rows, so that nobody waits for another; the sweep
-- folds them into one for each day (sweep_usage).
create table leasehold.usage_days (
  id            bigint generated always as identity primary key,
  folded        boolean not null default false,
  day           date not null,                         -- of UTC
  tenant        text not null,
  agent         text not null,
  account       text not null,
  provider      text not null,
  model         text not null,
  runs          bigint not null,
  input_tokens  numeric not null,
  output_tokens numeric not null,
  cached_tokens numeric not null,
  cost_usd      numeric,                               -- null: nothing of it had a price
  unpriced      bigint not null
) with (fillfactor = 70);
create unique index usage_days_one on leasehold.usage_days (tenant, agent, account, provider, model, day) where folded;
create index usage_days_new on leasehold.usage_days (id) where not folded;
create index usage_days_day on leasehold.usage_days (day);

-- How far a counter that only grows has been counted: of one run, or of a conversation over all its runs.
create table leasehold.usage_counters (
  scope         text not null constraint usage_counters_scope check (scope in ('run', 'session')),
  run_id        bigint not null,                       -- of a session: the run in which it began
  name          text not null,                         -- '' or what the agent calls it
  provider      text not null,
  model         text not null,
  tenant        text not null,
  input_tokens  bigint not null default 0,
  output_tokens bigint not null default 0,
  cached_tokens bigint not null default 0,
  cost_usd      numeric not null default 0,
  updated_at    timestamptz not null,
  primary key (scope, run_id, name, provider, model)
) with (fillfactor = 60);

create table leasehold.budgets (
  scope       text not null constraint budgets_scope check (scope in ('tenant', 'agent')),
  name        text not null,
  period      text not null constraint budgets_period check (period in ('day', 'week', 'month', 'total')),
  amount_usd  numeric not null constraint budgets_amount check (amount_usd > 0 and amount_usd < 1e12),
  on_unpriced text not null default 'ignore' constraint budgets_on_unpriced check (on_unpriced in ('ignore', 'hold')),
  refuse      boolean not null default false,          -- new jobs are refused while it is used up; false: they wait
  -- from here on only functions write
  since       timestamptz not null,                    -- the period that is counted here
  spent_usd   numeric not null default 0,
  unpriced    bigint not null default 0,
  primary key (scope, name, period)
) with (fillfactor = 60);

create table leasehold.sessions (
  id                 bigint generated always as identity primary key,
  tenant             text not null,
  agent              text not null,
  adapter            text not null,
  key                text not null,                    -- jobs.session_key, else 'job:<id>'
  backend_session_id text,                             -- null: the next run begins a new one
  poisoned_reason    text,
  conversation       bigint not null,                  -- the run in which it began
  last_run           bigint not null,
  updated_at         timestamptz not null,
  -- what it has kept on a host, see functions/storage.sql
  kind               text not null default 'none' constraint sessions_kind check (kind in ('none', 'directory', 'evicted')),
  host_id            text,
  keeper_id          text,                             -- whose state directory on that host
  path               text,                             -- below the state directory; known for evicted ones, too
  bytes              bigint constraint sessions_bytes check (bytes >= 0),
  expires_at         timestamptz,
  stored_at          timestamptz,
  evicted_at         timestamptz,
  constraint sessions_key unique (tenant, agent, adapter, key),
  constraint sessions_storage check (kind <> 'directory' or (host_id is not null and keeper_id is not null and path is not null))
);
create unique index sessions_directory on leasehold.sessions (host_id, keeper_id, path) where kind = 'directory';
create index sessions_path on leasehold.sessions (path) where path is not null;
create index sessions_expiry on leasehold.sessions (expires_at) where expires_at is not null;
create index sessions_rest on leasehold.sessions (updated_at) where kind <> 'directory' and key not like 'job:%';

alter table leasehold.reasons
  add column agent_may_say boolean not null default false;

alter table leasehold.usage enable row level security;
alter table leasehold.usage_days enable row level security;
alter table leasehold.usage_counters enable row level security;
alter table leasehold.budgets enable row level security;
alter table leasehold.sessions enable row level security;

create policy tenants on leasehold.usage to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.usage_days to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.usage_counters to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.sessions to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.budgets to leasehold_producer, leasehold_reader
  using (scope = 'tenant' and name = any ((select leasehold.my_tenants())::text[]));

create policy everything on leasehold.usage to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.usage_days to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.usage_counters to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.sessions to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.budgets to leasehold_admin, leasehold_worker using (true);
