-- The machinery of fair claiming and of waking up.

-- One row per (queue, tenant, agent) that may have due work, with its virtual time: the lane that has had least goes first.
-- Only the claim writes here, one claim at a time.
create table leasehold.lanes (
  lane   bigint primary key,
  queue  text not null,
  tenant text not null,
  agent  text not null,
  pass   double precision not null default 0,
  active boolean not null default true
) with (fillfactor = 50);
create index lanes_next on leasehold.lanes (pass, lane) where active;

-- Append-only notes to the claim: "look at this lane", "this key may be free". Written in the same transaction as the work,
-- so producers never lock a lane, and the claim may close an empty lane without a race.
create table leasehold.arrivals (
  id     bigint generated always as identity primary key,
  lane   bigint,
  queue  text,
  tenant text,
  agent  text,
  key    text
);

-- 1: somebody idle has not been rung since it last looked. A sequence, because it is read and written outside of snapshots.
create unlogged sequence leasehold.bell minvalue 0 start 0;

-- After a failover the new primary may lack the last claims and renewals: claim and reap stay closed for one lease.
create table leasehold.cluster (
  only_row     boolean primary key default true constraint cluster_only_row check (only_row),
  timeline     text not null,
  closed_until timestamptz not null,
  epoch        int not null default 1                  -- of changes() cursors; see leasehold.after_restore()
);
insert into leasehold.cluster (timeline, closed_until)
values (left(pg_walfile_name(pg_current_wal_lsn()), 8), '-infinity');

-- The closed vocabularies; functions/vocabulary.sql fills them.
create table leasehold.reasons (
  reason       text not null,
  outcome      text not null,
  uses_attempt boolean not null,
  retries      boolean not null,                       -- if attempts are left
  advice       text not null,
  primary key (reason, outcome)
);
create table leasehold.transitions (
  entity      text not null,
  from_status text not null,
  to_status   text not null,
  actor       text not null,
  primary key (entity, from_status, to_status, actor)
);
