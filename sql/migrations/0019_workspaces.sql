-- Where runs work: worktrees of repositories and directories of conversations, each with a life and a lease of its own.
-- functions/{workspaces,branches,workspace_rows}.sql are their rules.

alter table leasehold.agents
  add column repository           text,                          -- whose worktrees its runs work in; {repository} in it is the job's
  add column base_branch          text,                          -- null: the one that the repository has checked out
  add column branch_prefix        text not null default 'leasehold',
  add column prepare              jsonb not null default '[]',   -- commands, each an array of words, in a fresh worktree
  add column prepare_timeout      interval not null default '10 minutes',      -- for all of the preparation: clone, fetch, commands
  add column keep_workspace       text not null default 'always',
  add column env_file_path        text,
  add column env_file_text        text,
  add column materialize_env_file boolean not null default true,
  add constraint agents_prepare check (jsonb_typeof(prepare) = 'array'),
  add constraint agents_prepare_timeout check (prepare_timeout > interval '0'),
  add constraint agents_keep_workspace check (keep_workspace in ('always', 'on_failure', 'never'));

alter table leasehold.jobs
  add column branch               text,                          -- null: one is made up
  add column base_branch          text,                          -- null: the agent's
  add column use_repository       boolean not null default true,
  add column env_file_path        text,                          -- null: the agent's
  add column materialize_env_file boolean;                       -- null: as the agent says

create table leasehold.workspaces (
  id           bigint generated always as identity primary key,
  tenant       text not null,
  host_id      text not null,
  keeper_id    text not null,                            -- whose state directory on that host
  kind         text not null constraint workspaces_kind check (kind in ('repository', 'session')),
  source       text not null constraint workspaces_source check (source in ('job_repository', 'agent_repository', 'session')),
  agent        text not null,
  key          text not null,                            -- whose it is: job:<id>, session:<key>, branch:<name>
  repository   text,
  path         text,                                     -- below the state directory; its name is the id
  branch       text,
  base         text,                                     -- branch; null: what the repository has checked out
  base_commit  text,
  head_commit  text,
  status       text not null default 'preparing' constraint workspaces_status check (
                 status in ('preparing', 'ready', 'in_use', 'free', 'quarantined', 'removed')),
  dirty        boolean,
  job_id       bigint,                                   -- the last one
  run_id       bigint,                                   -- who has it
  last_run     bigint,
  created_at   timestamptz not null default leasehold.clock(),
  used_at      timestamptz not null default leasehold.clock(),
  removed_at   timestamptz,
  constraint workspaces_repository check ((repository is not null) = (kind = 'repository')),
  constraint workspaces_held check ((run_id is not null) = (status in ('preparing', 'ready', 'in_use')) or status = 'quarantined'),
  constraint workspaces_removed check ((removed_at is not null) = (status = 'removed'))
);
create unique index workspaces_one on leasehold.workspaces (host_id, keeper_id, tenant, agent, coalesce(repository, ''), key)
  where status <> 'removed';
create unique index workspaces_run on leasehold.workspaces (run_id) where run_id is not null;
create unique index workspaces_branch on leasehold.workspaces (host_id, keeper_id, tenant, repository, branch)
  where repository is not null and status <> 'removed';
create index workspaces_job on leasehold.workspaces (job_id) where job_id is not null;
create index workspaces_last_run on leasehold.workspaces (last_run) where last_run is not null;
create index workspaces_free on leasehold.workspaces (used_at) where status = 'free';
create index workspaces_gone on leasehold.workspaces (removed_at) where status = 'removed';

alter table leasehold.workspaces enable row level security;
create policy tenants on leasehold.workspaces to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy everything on leasehold.workspaces to leasehold_admin, leasehold_worker using (true);

insert into leasehold.retention (what, keep) values
  ('workspaces', '14 days');                               -- that nobody has used for so long; branches stay in the host's clone
