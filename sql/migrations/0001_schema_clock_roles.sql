-- The ground everything stands on: the schema, the one clock, the four roles.
--
-- Nothing in Leasehold reads now() or clock_timestamp() but leasehold.clock(). A test freezes it for its own session
-- with `set leasehold.now = '2030-01-01 00:00Z'`; the setting is ignored unless the login is a superuser or a member
-- of leasehold_admin, because definer functions would otherwise let any client choose the time.

create schema if not exists leasehold;

-- Roles belong to the whole cluster: two databases may be migrated at the same moment, so "exists already" is fine at any point.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['leasehold_admin', 'leasehold_worker', 'leasehold_producer', 'leasehold_reader'] loop
    if exists (select from pg_roles where rolname = wanted) then
      continue;
    end if;
    begin
      execute format('create role %I nologin', wanted);
    exception
      when duplicate_object or unique_violation then
        null;                                        -- another database of this cluster has just made it
      when insufficient_privilege then
        raise exception 'the role "%" is missing and "%" may not create roles', wanted, current_user
          using errcode = 'LH050',
                hint = 'Let a superuser run this once: CREATE ROLE leasehold_admin; CREATE ROLE leasehold_worker; '
                       'CREATE ROLE leasehold_producer; CREATE ROLE leasehold_reader; then migrate again.';
    end;
  end loop;
end $$;

-- stable, so that `run_at <= leasehold.clock()` can be an index condition; plpgsql without a SET clause, because a call costs
-- least so, and there are many
create function leasehold.clock() returns timestamptz
language plpgsql stable
as $$
declare
  frozen text := pg_catalog.current_setting('leasehold.now', true);
begin
  if frozen is null or frozen = '' or not pg_catalog.pg_has_role(session_user, 'leasehold_admin', 'member') then
    return pg_catalog.clock_timestamp();
  end if;
  return frozen::pg_catalog.timestamptz;
end $$;
