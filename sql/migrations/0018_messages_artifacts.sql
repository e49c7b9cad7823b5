-- What is said (messages), what comes of it (artifacts), what changes where it is done (workspace_changes), and how far a reader has read
-- a job (job_marks). Their rules: functions/{messages,artifacts,workspace_changes,traces}.sql.

create sequence leasehold.message_versions;

create table leasehold.messages (
  id          bigint generated always as identity primary key,
  tenant      text not null,
  job_id      bigint not null,
  run_id      bigint,                                  -- null: no run has it yet
  thread      text,
  external_id text,                                    -- what the agent calls it; '@' and its place in the stdout if it has no name
  turn_id     bigint,
  source      text not null constraint messages_source check (source in ('prompt', 'turn', 'agent', 'worker')),
  role        text not null constraint messages_role check (role in ('user', 'assistant', 'system', 'tool')),
  content     text not null default '',
  status      text not null default 'completed' constraint messages_status check (status in ('queued', 'streaming', 'completed', 'failed')),
  truncated   boolean not null default false,
  bytes       bigint not null default 0,               -- of all that was said, kept or not
  mark        bigint not null default -1,              -- the place in the run's stdout up to which it is in here
  metadata    jsonb not null default '{}',
  created_at  timestamptz not null default leasehold.clock(),
  updated_at  timestamptz not null default leasehold.clock(),
  version     bigint not null default nextval('leasehold.message_versions'),
  xid         xid8 not null default pg_current_xact_id(),      -- for readers who follow; see message_changes()
  constraint messages_one unique (run_id, external_id)
) with (fillfactor = 70);
create index messages_of_job on leasehold.messages (job_id, id);
create index messages_of_thread on leasehold.messages (tenant, thread, id) where thread is not null;
create index messages_changes on leasehold.messages (xid, version);
create index messages_streaming on leasehold.messages (run_id) where status = 'streaming';
create unique index messages_prompt on leasehold.messages (job_id) where source = 'prompt' and turn_id is null;
create unique index messages_turn on leasehold.messages (turn_id) where turn_id is not null;

-- the rows of message_changes()
create type leasehold.changed_message as (
  cursor text, id bigint, tenant text, job_id bigint, run_id bigint, thread text, role text, content text, status text,
  truncated boolean, metadata jsonb, created_at timestamptz, updated_at timestamptz);

alter table leasehold.agents
  add column artifact_limit bigint not null default 1048576;      -- bytes of one artifact, and of all diffs of a run together

create table leasehold.artifacts (
  id           bigint generated always as identity primary key,
  tenant       text not null,
  job_id       bigint not null,
  run_id       bigint not null,
  key          text not null,                          -- within its run: '@' and its place in the stdout, or the worker's own name for it
  kind         text not null constraint artifacts_kind check (kind in
                 ('plan', 'diff', 'test_output', 'summary', 'error', 'pr_body', 'report', 'other')),
  title        text not null,
  content      text not null,
  content_type text not null constraint artifacts_content_type check (content_type in
                 ('text/markdown', 'text/plain', 'application/json', 'text/x-diff')),
  bytes        bigint not null,                        -- of the whole, as the digest is
  sha256       text not null,
  truncated    boolean not null default false,
  created_at   timestamptz not null default leasehold.clock(),
  constraint artifacts_one unique (run_id, key)
);
create index artifacts_of_job on leasehold.artifacts (job_id, id);

create table leasehold.workspace_changes (
  id          bigint generated always as identity primary key,
  tenant      text not null,
  job_id      bigint not null,
  run_id      bigint not null,
  source      text not null constraint workspace_changes_source check (source in ('user', 'agent', 'command')),
  path        text not null,
  change_type text not null constraint workspace_changes_type check (change_type in ('added', 'modified', 'deleted', 'renamed')),
  old_path    text,
  added       int,                                     -- lines
  deleted     int,
  diff        text,
  truncated   boolean not null default false,
  created_at  timestamptz not null default leasehold.clock(),
  constraint workspace_changes_renamed check ((old_path is not null) = (change_type = 'renamed'))
);
create unique index workspace_changes_one on leasehold.workspace_changes (run_id, source, md5(path));      -- a path may be too long for an index
create index workspace_changes_of_job on leasehold.workspace_changes (job_id, id);

-- How far a reader has read a job. A login has its own readers, as in read_cursors.
create table leasehold.job_marks (
  tenant  text not null,
  job_id  bigint not null,
  login   name not null default session_user,
  reader  text not null,
  seq     int not null,
  read_at timestamptz not null default leasehold.clock(),
  primary key (job_id, login, reader)
);

insert into leasehold.retention (what, keep) values
  ('messages',          null),                         -- sooner than their job; null: as long as it
  ('artifacts',         null),
  ('workspace_changes', null);

alter table leasehold.messages enable row level security;
alter table leasehold.artifacts enable row level security;
alter table leasehold.workspace_changes enable row level security;
alter table leasehold.job_marks enable row level security;

create policy tenants on leasehold.messages to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.artifacts to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.workspace_changes to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.job_marks to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]) and login = session_user);

create policy everything on leasehold.messages to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.artifacts to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.workspace_changes to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.job_marks to leasehold_admin, leasehold_worker using (true);
