-- What each adapter can do while its agent lives. Refilled whenever this text changes; read whenever something is said to a job.

delete from leasehold.adapters;
insert into leasehold.adapters (name, converses, steerable, interruptible) values
  ('codex',      true,  true,  true),
  ('claude',     true,  true,  true),
  ('acp',        true,  false, true),
  ('codex-exec', false, false, false),
  ('command',    false, false, false);

-- Does the agent, as its row says now, take a turn of this kind?
create or replace function leasehold.takes(agent text, kind text) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((select case takes.kind when 'prompt' then a.converses when 'steer' then a.steerable else a.interruptible end
                     from adapters a
                    where a.name = adapter_of(takes.agent)), false);
end $$;
