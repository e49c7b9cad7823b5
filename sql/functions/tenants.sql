-- Who the caller is. Tenancy hangs on session_user: SET ROLE and definer functions cannot change it, a client setting cannot forge it.

create or replace function leasehold.my_tenants() returns text[]
language sql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select coalesce(array_agg(mine.tenant), '{default}')
    from tenant_logins mine
   where mine.login = session_user
$$;

create or replace function leasehold.my_default_tenant() returns text
language sql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select coalesce(
    (select mine.tenant
       from tenant_logins mine
      where mine.login = session_user
      order by mine.is_default desc, mine.tenant
      limit 1),
    'default')
$$;

-- Definer functions pass row-level security by, so each of them asks this. Inside, current_user is the owner of the schema.
create or replace function leasehold.may_act_for(tenant text) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return may_act_for.tenant = any (my_tenants())
      or pg_has_role(session_user, 'leasehold_admin', 'member')
      or pg_has_role(session_user, 'leasehold_worker', 'member')
      or pg_has_role(session_user, current_user, 'member');
end $$;

-- On whose behalf a function acts: what the caller names, if he may, else his own.
create or replace function leasehold.tenant_of(asked text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  own text := my_default_tenant();
  owner text := coalesce(nullif(btrim(asked), ''), own);
begin
  if owner <> own and not may_act_for(owner) then
    raise exception 'the login "%" may not act for tenant "%"', session_user, owner
      using errcode = 'LH030', hint = 'Leave tenant out, or ask an administrator for a row in leasehold.tenant_logins.';
  end if;
  return owner;
end $$;
