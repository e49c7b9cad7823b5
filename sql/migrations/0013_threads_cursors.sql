-- Threads: the conversation that people see jobs belong to, what has moved in this very transaction, and how far each reader has read.
--
-- Lock order: a thread's row comes after everything else, at commit, in the order of its name. See functions/threads.sql.

create sequence leasehold.thread_versions;

create table leasehold.threads (
  tenant           text not null,
  thread           text not null,
  title            text,
  summary          text,                               -- of the last job that had one; never erased
  status           text not null default 'idle',       -- idle: no job of it is known
  active           boolean not null default false,     -- has live jobs
  last_job         bigint,                             -- the one that ended last
  last_ended_at    timestamptz,
  resolved_at      timestamptz,                        -- when its last job ended; null while jobs are live
  last_activity_at timestamptz not null,
  created_at       timestamptz not null default leasehold.clock(),
  updated_at       timestamptz not null,
  version          bigint not null default nextval('leasehold.thread_versions'),
  xid              xid8 not null default pg_current_xact_id(),     -- for readers of everybody's threads; see thread_changes()
  primary key (tenant, thread),
  constraint threads_status check (status in
    ('idle', 'queued', 'running', 'waiting', 'succeeded', 'failed', 'blocked', 'timed_out', 'cancelled')),
  constraint threads_active check (active = (status in ('queued', 'running', 'waiting'))),
  constraint threads_resolved check (resolved_at is null or not active)
) with (fillfactor = 70);
create index threads_listed on leasehold.threads (tenant, active, last_activity_at desc, updated_at desc, thread);
create index threads_changes on leasehold.threads (xid, version);

-- What the open transaction has moved. A row lives from a transition to the commit of the same transaction; one that is seen by
-- others is a left-over (its thread was held by somebody) and is taken up later.
create table leasehold.thread_moves (
  id      bigint generated always as identity,
  xid     xid8 not null default pg_current_xact_id(),
  tenant  text not null,
  thread  text not null,
  job     bigint,
  title   text,
  summary text
);
create index thread_moves_of_transaction on leasehold.thread_moves (xid);

-- How far a reader has read. A login has its own readers: nobody marks for another login's.
create table leasehold.read_cursors (
  tenant  text not null,
  thread  text not null,
  login   name not null default session_user,
  reader  text not null,
  version bigint not null,
  read_at timestamptz not null default leasehold.clock(),
  primary key (tenant, thread, login, reader)
);

-- the rows of the lists in functions/lists.sql
create type leasehold.listed_thread as (
  thread text, title text, status text, active boolean, unread boolean, version bigint, summary text, last_job bigint,
  resolved_at timestamptz, last_activity_at timestamptz, updated_at timestamptz, tenant text, path text, cursor text);
create type leasehold.listed_job as (
  id bigint, queue text, agent text, status text, reason text, priority int, title text, thread text, attempts int,
  created_at timestamptz, run_at timestamptz, started_at timestamptz, finished_at timestamptz, tenant text, cursor text);

-- jobs without a thread pay for none of the first three
create index jobs_of_thread on leasehold.jobs (tenant, thread, id) where thread is not null;
create index jobs_live_of_thread on leasehold.jobs (tenant, thread, status, id) where thread is not null and finished_at is null;
create index jobs_ended_of_thread on leasehold.jobs (tenant, thread, finished_at desc, id desc)
  where thread is not null and finished_at is not null;
create index jobs_of_tenant on leasehold.jobs (tenant, id);
create index jobs_live_of_tenant on leasehold.jobs (tenant, priority desc, created_at, id) where finished_at is null;

alter table leasehold.threads enable row level security;
alter table leasehold.thread_moves enable row level security;
alter table leasehold.read_cursors enable row level security;

create policy tenants on leasehold.threads to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.read_cursors to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]) and login = session_user);

create policy everything on leasehold.threads to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.thread_moves to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.read_cursors to leasehold_admin, leasehold_worker using (true);
