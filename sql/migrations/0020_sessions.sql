-- Sessions that are named, begun anew, forgotten under a run that lives, and kept in a directory of their own with their credential.

alter table leasehold.jobs
  add column session     text,                          -- the backend's session to go on with, in place of its key's
  add column new_session boolean not null default false;      -- its key begins a new one with this job

alter table leasehold.agents
  add column private_config  boolean not null default false,      -- a configuration directory for each of its conversations
  add column config_files    jsonb not null default '{}',         -- what is written into it: text by name
  add column credential      text,                                -- a file on the worker's host that is lent to its runs
  add column credential_name text,                                -- what it is called in the directory; null: as its adapter wants it
  add column credential_lock text not null default 'run',         -- run: one run at a time has it; copy: many, each a copy
  add column credential_wait interval not null default '1 minute',
  add column session_keep    interval default '90 days',          -- after its last run, the directory goes; null: with its session
  add constraint agents_credential_lock check (credential_lock in ('run', 'copy')),
  add constraint agents_credential_wait check (credential_wait >= interval '0'),
  add constraint agents_session_keep check (session_keep > interval '0');

alter table leasehold.runs
  add column session_epoch     bigint not null default 0,         -- of its session when it was claimed: what is older is not heard
  add column session_elsewhere text,                              -- the host that has what it would have gone on with
  add column private_config    boolean not null default false;    -- it has sessions/<conversation> on its host

alter table leasehold.sessions
  add column epoch      bigint not null default 0,                -- one more with each reset
  add column last_error text,                                     -- of its last run; null: it went well
  add column version    bigint not null default 1,                -- one more when it becomes another; being used is no news
  add column created_at timestamptz not null default leasehold.clock();
create index sessions_backend on leasehold.sessions (backend_session_id) where backend_session_id is not null;
create index sessions_newest on leasehold.sessions (tenant, updated_at desc, id desc);

drop function if exists leasehold.enqueue(text, text, text, text, text, text, text, jsonb, int, timestamptz, text, text, int, jsonb,
                                text, jsonb, text, text, text, numeric);
