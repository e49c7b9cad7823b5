-- Tenants apart: producers and readers see and write the rows of their tenants; admins and workers see all.
-- The sub-select makes the look-up happen once per statement. functions/tenants.sql says whose a login is.

create function leasehold.my_tenants() returns text[]
language sql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select coalesce(array_agg(mine.tenant), '{default}')
    from tenant_logins mine
   where mine.login = session_user
$$;

alter table leasehold.jobs enable row level security;
alter table leasehold.runs enable row level security;
alter table leasehold.events enable row level security;
alter table leasehold.output enable row level security;

create policy tenants on leasehold.jobs to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.runs to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.events to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));
create policy tenants on leasehold.output to leasehold_producer, leasehold_reader
  using (tenant = any ((select leasehold.my_tenants())::text[]));

create policy everything on leasehold.jobs to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.runs to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.events to leasehold_admin, leasehold_worker using (true);
create policy everything on leasehold.output to leasehold_admin, leasehold_worker using (true);
