-- Agents that are spoken to while they live, and what their rows may say of that.

alter table leasehold.agents
  drop constraint agents_adapter,
  add constraint agents_adapter check (adapter in ('command', 'codex-exec', 'codex', 'claude', 'acp')),
  add column answer_timeout interval check (answer_timeout > interval '0'),      -- how long a human may take; null: as long as it takes
  add column on_unanswered text not null default 'deny' check (on_unanswered in ('deny', 'cancel', 'ask_again')),
  add column while_waiting text not null default 'keep' check (while_waiting in ('keep', 'release'));   -- its place, while it waits for a human
