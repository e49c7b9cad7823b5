-- Who may be asked (agents), on whose behalf (tenants), in which line (queues), and which login speaks for which tenant.
-- The rules of writing an agent, with their messages, are in functions/agents.sql; the checks here are the last line.

create table leasehold.agents (
  name              text primary key,
  adapter           text not null default 'command',
  command           text[] not null,
  env               jsonb not null default '{}',
  status            text not null default 'enabled',
  status_reason     text,
  max_running       int,
  retry_backoff     interval not null default '5 seconds',
  retry_backoff_max interval not null default '10 minutes',
  stop_grace        interval not null default '10 seconds',
  total_timeout     interval,
  workspace         text,                              -- null: a fresh directory for each run
  launcher          text[] not null default '{}',
  limits            jsonb not null default '{}',
  created_at        timestamptz not null default leasehold.clock(),
  updated_at        timestamptz not null default leasehold.clock(),
  constraint agents_adapter check (adapter in ('command')),
  constraint agents_status check (status in ('enabled', 'paused')),
  constraint agents_command check (cardinality(command) > 0),
  constraint agents_max_running check (max_running >= 0)
);

-- A tenant needs no row here; a row gives it a limit, a weight or a pause.
create table leasehold.tenants (
  name        text primary key,
  paused      boolean not null default false,
  max_running int constraint tenants_max_running check (max_running >= 0),
  weight      int not null default 1 constraint tenants_weight check (weight between 1 and 1000)
);

-- A queue needs no row here either.
create table leasehold.queues (
  name        text primary key,
  paused      boolean not null default false,
  max_running int constraint queues_max_running check (max_running >= 0)
);

-- A login without a row here belongs to the tenant 'default'.
create table leasehold.tenant_logins (
  login      name,
  tenant     text,
  is_default boolean not null default false,
  primary key (login, tenant)
);
create unique index tenant_logins_one_default on leasehold.tenant_logins (login) where is_default;
