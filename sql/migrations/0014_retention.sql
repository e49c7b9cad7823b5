-- How long what is kept (retention), and directories that have to go (removals): the row is written with the decision, the daemon
-- of that host performs it, however often it dies in between. functions/{retention,deletion,removals}.sql are their rules.

create table leasehold.retention (
  what            text primary key,
  keep            interval constraint retention_keep check (keep >= interval '0'),     -- null: for ever
  batch           int not null default 200,                -- of jobs (or rows) in one transaction; taken as 1 to 1000
  -- from here on only functions write
  removed         bigint not null default 0,               -- jobs, workers or removals; of output and events: rows
  last_removed_at timestamptz,
  swept_at        timestamptz,
  pass_began_at   timestamptz,                             -- a pass goes through the past once, from the oldest; then it rests
  mark_at         timestamptz not null default '-infinity',
  mark_id         bigint not null default 0
);
insert into leasehold.retention (what, keep) values
  ('output',   '30 days'),                                 -- of jobs that ended so long ago
  ('events',   null),                                      -- sooner than their job; null: as long as it
  ('jobs',     '90 days'),                                 -- with all that hangs on them
  ('wakeups',  '30 days'),                                 -- that led to no job; the others go with it
  ('usage',    null),                                      -- sums of the days of jobs that are gone
  ('threads',  '1 year'),                                  -- without a job, and at rest for so long
  ('workers',  '30 days'),                                 -- as long as a run may name them, whatever stands here
  ('sessions', '1 year'),                                  -- that jobs share: unused for so long; others go with their job
  ('removals', '30 days'),                                 -- that are done
  ('orphans',  '7 days');                                  -- run directories that no run of the database needs any more

create table leasehold.removals (
  id        bigint generated always as identity primary key,
  host_id   text not null,
  keeper_id text not null,                                 -- whose state directory on that host
  path      text not null,                                 -- below the state directory
  what      text not null,
  token     uuid,                                          -- of the run whose directory it is: another may have its id by now
  wanted_at timestamptz not null default leasehold.clock(),
  next_at   timestamptz not null default leasehold.clock(),      -- not before
  attempts  int not null default 0,
  error     text,
  done_at   timestamptz,
  constraint removals_what check (what in ('run', 'session', 'workspace')),
  constraint removals_path check (
    octet_length(path) <= 500
    and path ~ '^(runs/[1-9][0-9]{0,18}|(sessions|workspaces)(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99})+)$'
    and (what = 'run') = (path like 'runs/%'))
);
create unique index removals_one on leasehold.removals (host_id, keeper_id, path) where done_at is null;
create index removals_next on leasehold.removals (host_id, keeper_id, next_at) where done_at is null;
create index removals_done on leasehold.removals (done_at) where done_at is not null;
create index removals_wanted on leasehold.removals (wanted_at) where done_at is null;

-- the order of a sweep, in which two jobs that ended at the same moment have a place each; and the same for each tenant
drop index leasehold.jobs_finished;
create index jobs_finished on leasehold.jobs (finished_at, id) where finished_at is not null;
create index jobs_finished_of_tenant on leasehold.jobs (tenant, finished_at, id) where finished_at is not null;
create index workers_of_keeper on leasehold.workers (keeper_id, id);
create index workers_ended on leasehold.workers (ended_at) where ended_at is not null;
create index wakeups_of_no_job on leasehold.wakeups (at) where job_id is null;

-- what a job that goes is looked up by, see hangs_on_jobs()
create index schedules_last_job on leasehold.schedules (last_job) where last_job is not null;
create index schedules_last_wakeup on leasehold.schedules (last_wakeup) where last_wakeup is not null;
create index threads_rest on leasehold.threads (last_activity_at, version) where not active;
create index threads_last_job on leasehold.threads (last_job) where last_job is not null;
create index sessions_last_run on leasehold.sessions (last_run) where last_run is not null;
create index sessions_conversation on leasehold.sessions (conversation);
alter table leasehold.sessions alter column last_run drop not null;      -- null: it is gone, the session goes on
