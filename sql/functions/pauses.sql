-- Pause and resume in plain words: each is a hold with the reason "paused". What runs goes on; nothing new starts.
-- An agent's pause is its status (agents.sql).

create or replace function leasehold.pause_queue(name text, reason text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform hold('queue', pause_queue.name, 'paused', message => pause_queue.reason);
end $$;

create or replace function leasehold.pause_tenant(name text, reason text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform hold('tenant', pause_tenant.name, 'paused', message => pause_tenant.reason);
end $$;

create or replace function leasehold.pause_host(host_id text, reason text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform hold('host', pause_host.host_id, 'paused', message => pause_host.reason);
end $$;

create or replace function leasehold.pause_all(reason text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform hold('all', '', 'paused', message => pause_all.reason);
end $$;

-- Lifts the pause and no other hold; the column `paused` of the queue's row as well.
create or replace function leasehold.resume_queue(name text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform lift('queue', resume_queue.name, 'paused');
  update queues q
     set paused = false
   where q.name = btrim(resume_queue.name)
     and q.paused;
end $$;

create or replace function leasehold.resume_tenant(name text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform lift('tenant', resume_tenant.name, 'paused');
  update tenants t
     set paused = false
   where t.name = btrim(resume_tenant.name)
     and t.paused;
end $$;

create or replace function leasehold.resume_host(host_id text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform lift('host', resume_host.host_id, 'paused');
end $$;

create or replace function leasehold.resume_all() returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform lift('all', '', 'paused');
end $$;
