-- breaking
-- What a job may say of its place among others: what becomes of it while its key is taken, what it was woken with, which
-- repository, session and thread it belongs to, what it may cost. Older daemons put back functions that do not know these columns.

alter table leasehold.jobs
  add column conflict_policy text not null default 'defer' constraint jobs_conflict_policy check
    (conflict_policy in ('defer', 'coalesce', 'reject', 'return_existing', 'allow')),
  add column context         jsonb not null default '{}' constraint jobs_context check (jsonb_typeof(context) = 'object'),
  add column repository      text,                       -- of limits; the host's lock comes on top
  add column session_key     text,                       -- jobs of one tenant, agent and key go on with one conversation
  add column thread          text,
  add column budget_usd      numeric constraint jobs_budget check (budget_usd > 0),      -- of each of its runs; null: its agent's
  -- from here on only functions write
  add column coalesced       int not null default 0 constraint jobs_coalesced check (coalesced >= 0),      -- asks it has absorbed
  add column schedule_id     bigint;

-- one more list of arguments each
drop function if exists leasehold.enqueue(text, text, text, text, text, text, text, jsonb, int, timestamptz, text, text, int, jsonb);
drop function if exists leasehold.request_hash(text, text, text, text, text, text, jsonb, int, timestamptz, text, int, int, jsonb);
