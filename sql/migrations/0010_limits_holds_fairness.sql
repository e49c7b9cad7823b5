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
