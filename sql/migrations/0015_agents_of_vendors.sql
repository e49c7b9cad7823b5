-- Dialects beside that of plain programs: the agents that people use.

alter table leasehold.agents
  drop constraint agents_adapter,
  add constraint agents_adapter check (adapter in ('command', 'codex-exec', 'claude'));
