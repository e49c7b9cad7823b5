-- Schedules: jobs that come by the calendar (cron) or by a step (every). Users write the upper part of a row by plain SQL; the
-- lower part is written by functions/schedules.sql only.

create table leasehold.schedules (
  id              bigint generated always as identity primary key,
  tenant          text not null,
  name            text not null,
  agent           text not null,
  prompt          text not null,
  cron            text,                                -- minute hour day month weekday; the daemon's calendar reads it
  every           interval,                            -- a plain duration from starts_at on: a day is 24 hours
  timezone        text not null default 'UTC',         -- of cron
  starts_at       timestamptz not null,                -- no tick before; the origin of the grid of every
  missed          text not null default 'once',
  missed_most     int not null default 10,
  jitter          interval not null default '0',
  enabled         boolean not null default true,
  key             text,                                -- null: schedule:<id>
  conflict_policy text not null default 'coalesce',
  queue           text,
  priority        int,
  thread          text,
  payload         jsonb not null default '{}',
  context         jsonb not null default '{}',
  created_at      timestamptz not null,
  updated_at      timestamptz not null,
  -- from here on only functions write
  version         int not null default 1,              -- counts the edits: who has read an older one cannot fire
  next_at         timestamptz,                         -- the next tick; null: none, or a daemon has to look it up
  due_at          timestamptz,                         -- when a daemon must look at it: the next tick with its jitter; null: never
  last_at         timestamptz,                         -- the last tick that was fired
  last_wakeup     bigint,
  last_job        bigint,
  error           text,                                -- of the last tick, or why there is no next one; an edit clears it
  constraint schedules_name unique (tenant, name),
  constraint schedules_one_way check ((cron is null) <> (every is null)),
  constraint schedules_every check (every >= interval '1 second'),
  constraint schedules_missed check (missed in ('skip', 'once', 'all') and missed_most between 1 and 1000),
  constraint schedules_jitter check (jitter >= interval '0'),
  constraint schedules_conflict_policy check (conflict_policy in ('defer', 'coalesce', 'reject', 'return_existing', 'allow')),
  constraint schedules_objects check (jsonb_typeof(payload) = 'object' and jsonb_typeof(context) = 'object'),
  constraint schedules_disabled check (enabled or (next_at is null and due_at is null))
) with (fillfactor = 70);
create index schedules_due on leasehold.schedules (due_at, id) where due_at is not null;
create index jobs_schedule on leasehold.jobs (schedule_id, id) where schedule_id is not null;

alter table leasehold.schedules enable row level security;
create policy tenants on leasehold.schedules to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy everything on leasehold.schedules to leasehold_admin, leasehold_worker using (true);
