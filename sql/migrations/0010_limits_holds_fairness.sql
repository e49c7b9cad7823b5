-- breaking
-- What must not start now (holds), how much may run at once on a host, in a repository and altogether, and what a fair choice among
-- many tenants needs. Older daemons put back a claim that knows none of it.

-- What must not start now, and until when. The claim passes by whatever a live row here covers.
create table leasehold.holds (
  scope      text not null constraint holds_scope check (scope in ('all', 'tenant', 'queue', 'agent', 'account', 'host', 'repository')),
  name       text not null,                              -- '' for all; tenant/name for a repository
  reason     text not null constraint holds_reason check (btrim(reason) <> ''),
  message    text,
  until      timestamptz,                                -- null: until it is lifted
  stagger    interval constraint holds_stagger check (stagger > interval '0'),      -- after until: one start each
  released   int not null default 0 constraint holds_released check (released >= 0),      -- starts since until
  created_at timestamptz not null default leasehold.clock(),
  primary key (scope, name, reason),
  constraint holds_name check ((scope = 'all') = (name = ''))
);
create index holds_until on leasehold.holds (until) where until is not null;

-- Agents of one account share its quota; null: the agent's name is its account.
alter table leasehold.agents add column if not exists account text;

-- Limits on a host, in a repository, and altogether. Neither a host nor a repository needs a row.
create table leasehold.hosts (
  host_id     text primary key,
  max_running int constraint hosts_max_running check (max_running >= 0)
);
create table leasehold.repositories (
  tenant      text,
  name        text,
  max_running int constraint repositories_max_running check (max_running >= 0),
  primary key (tenant, name)
);
alter table leasehold.repositories enable row level security;
create policy tenants on leasehold.repositories to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy everything on leasehold.repositories to leasehold_admin, leasehold_worker using (true) with check (true);
alter table leasehold.cluster
  add column max_running int constraint cluster_max_running check (max_running >= 0);
alter table leasehold.runs
  add column host_id    text,
  add column repository text;
update leasehold.runs r set host_id = w.host_id from leasehold.workers w where w.id = r.worker_id and r.ended_at is null;
drop index leasehold.runs_live;
create index runs_live on leasehold.runs (worker_id) include (id, job_id, tenant, agent, queue, repository, host_id) where ended_at is null;

-- Who goes first in a lane: the lowest rank. A point of priority is worth `ageing` of waiting; without it nearly everything.
alter table leasehold.queues
  add column ageing interval constraint queues_ageing check (ageing > interval '0');
alter table leasehold.jobs
  add column rank timestamptz not null default '-infinity';
update leasehold.jobs set rank = greatest(run_at, '1970-01-01') - priority * interval '5 years' where finished_at is null;
drop index leasehold.jobs_claim;
create index jobs_claim on leasehold.jobs (lane, rank, id) where status = 'queued' and due;

-- Virtual time of each tenant that may have due work; lanes keep theirs inside their tenant. What is at a limit, paused or held is
-- parked: it costs nothing per claim, and a note among the arrivals says when to look at it again.
create table leasehold.shares (
  tenant text primary key,
  pass   double precision not null default 0,
  active boolean not null default true,
  parked boolean not null default false,                 -- not active, because of the tenant itself
  constraint shares_parked check (not (active and parked))
) with (fillfactor = 50);
create index shares_next on leasehold.shares (pass, tenant) where active;
create index shares_pass on leasehold.shares (pass);      -- its end, when nobody is in line
alter table leasehold.lanes
  add column repository text,
  add column parked_on text,                             -- scope:name of what stopped it
  add column turn double precision not null default 0,   -- the virtual time of its tenant when it was parked
  add constraint lanes_parked check (not (active and parked_on is not null));
drop index leasehold.lanes_next;
create index lanes_next on leasehold.lanes (tenant, pass, lane) where active;
create index lanes_parked on leasehold.lanes (parked_on, turn, lane) where parked_on is not null;
insert into leasehold.shares (tenant, pass, active)
select l.tenant, coalesce(min(l.pass) filter (where l.active), max(l.pass)), bool_or(l.active) from leasehold.lanes l group by l.tenant;
alter table leasehold.arrivals
  add column repository text,
  add column account    text;

-- their text in functions/ has another answer, or more arguments, now
drop function if exists leasehold.choose(int, text[]);
drop function if exists leasehold.free_of_limits();
drop function if exists leasehold.newcomers_pass();
drop function if exists leasehold.admit_arrivals();
drop function if exists leasehold.lane_of(text, text, text);
