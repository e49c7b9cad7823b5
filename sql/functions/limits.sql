-- Limits: how much may run at once, per agent, queue, tenant, repository and host, and altogether. Live runs are counted inside the
-- claim, which is one at a time, so the numbers are exact. Whoever makes room leaves a note for the claim.

create or replace function leasehold.limit_all(max_running int) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if limit_all.max_running < 0 then
    raise exception 'max_running % is below 0', limit_all.max_running
      using errcode = 'LH072', hint = 'NULL means no limit, 0 starts nothing.';
  end if;
  update cluster c set max_running = limit_all.max_running;      -- the trigger on cluster rings
end $$;

-- What is left of each limit, as {"agent:name": free, ...}, for names that have live runs. Looked up row by row: CTEs have no statistics.
create or replace function leasehold.free_of_limits() returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce((
    select jsonb_object_agg(f.key, f.free)
      from (select 'agent:' || a.name as key, a.max_running - live.n as free
              from (select r.agent as name, count(*) as n from runs r where r.ended_at is null and not r.released group by r.agent) live
             cross join lateral (select k.name, k.max_running from leasehold.agents k where k.name = live.name offset 0) a
            union all
            select 'tenant:' || t.name, t.max_running - live.n
              from (select r.tenant as name, count(*) as n from runs r where r.ended_at is null and not r.released group by r.tenant) live
             cross join lateral (select k.name, k.max_running from leasehold.tenants k where k.name = live.name offset 0) t
            union all
            select 'queue:' || q.name, q.max_running - live.n
              from (select r.queue as name, count(*) as n from runs r where r.ended_at is null and not r.released group by r.queue) live
             cross join lateral (select k.name, k.max_running from leasehold.queues k where k.name = live.name offset 0) q
            union all
            select 'repository:' || p.tenant || '/' || p.name, p.max_running - live.n
              from (select r.tenant, r.repository as name, count(*) as n
                      from runs r where r.ended_at is null and not r.released and r.repository is not null group by r.tenant, r.repository) live
             cross join lateral (select k.tenant, k.name, k.max_running
                                   from leasehold.repositories k where k.tenant = live.tenant and k.name = live.name offset 0) p) f
     where f.free is not null), '{}');
end $$;

-- How many more may start on this host just now, of those asked for.
create or replace function leasehold.free_on_host(host text, wanted int) returns int
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  most int := (select c.max_running from cluster c);
  most_here int := (select h.max_running from hosts h where h.host_id = free_on_host.host);
begin
  if exists (select from holds_on(null, null, null, null, free_on_host.host)) then
    return 0;
  end if;
  if most is not null then
    wanted := least(wanted, most - (select count(*) from runs r where r.ended_at is null and not r.released));
  end if;
  if most_here is not null then
    wanted := least(wanted, most_here - (select count(*) from runs r where r.ended_at is null and not r.released and r.host_id = free_on_host.host));
  end if;
  return greatest(wanted, 0);
end $$;

-- How many of what is parked on this may be looked at again; 1000 stands for any number.
create or replace function leasehold.free_of(key text) returns int
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  scope_ text := split_part(free_of.key, ':', 1);
  name_ text := substr(free_of.key, length(scope_) + 2);
  most int;
  live bigint;
  through double precision := (select min(case when h.until <= clock() then starts_through(h.until, h.stagger) - h.released else 0 end)
                                 from holds h
                                where h.scope = scope_
                                  and h.name = name_);
begin
  if scope_ = 'agent' then
    most := (select case a.status when 'enabled' then a.max_running else 0 end
               from (values (name_)) asked (name)
               left join agents a using (name));               -- an agent that is gone starts nothing
    live := (select count(*) from runs r where r.ended_at is null and not r.released and r.agent = name_);
  elsif scope_ = 'tenant' then
    most := (select case when t.paused then 0 else t.max_running end from tenants t where t.name = name_);
    live := (select count(*) from runs r where r.ended_at is null and not r.released and r.tenant = name_);
  elsif scope_ = 'queue' then
    most := (select case when q.paused then 0 else q.max_running end from queues q where q.name = name_);
    live := (select count(*) from runs r where r.ended_at is null and not r.released and r.queue = name_);
  elsif scope_ = 'repository' then
    most := (select p.max_running from repositories p where p.tenant || '/' || p.name = name_);
    live := (select count(*) from runs r where r.ended_at is null and not r.released and r.tenant || '/' || r.repository = name_);
  end if;
  return greatest(least(1000, most - live, through), 0);
end $$;

-- The trigger of everything that may make room: a note for the claim, of the old name and the new one.
create or replace function leasehold.note_of_room() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  insert into arrivals (tenant, queue, agent, account, repository)
  select distinct
         case tg_table_name when 'tenants' then r ->> 'name' when 'repositories' then r ->> 'tenant'
                            when 'holds' then case r ->> 'scope' when 'tenant' then r ->> 'name'
                                                                 when 'repository' then split_part(r ->> 'name', '/', 1) end end,
         case tg_table_name when 'queues' then r ->> 'name' when 'holds' then case r ->> 'scope' when 'queue' then r ->> 'name' end end,
         case tg_table_name when 'agents' then r ->> 'name' when 'holds' then case r ->> 'scope' when 'agent' then r ->> 'name' end end,
         case tg_table_name when 'agents' then nullif(coalesce(to_jsonb(old), '{}') -> 'account' is distinct from to_jsonb(new) -> 'account', false)::text
                            when 'holds' then case r ->> 'scope' when 'account' then r ->> 'name' end end,
         case tg_table_name when 'repositories' then r ->> 'name'
                            when 'holds' then case r ->> 'scope' when 'repository' then substr(r ->> 'name', strpos(r ->> 'name', '/') + 1) end end
    from (values (to_jsonb(old)), (to_jsonb(new))) both_ (r)
   where r is not null
     and (tg_table_name <> 'holds' or r ->> 'scope' not in ('all', 'host'));
  return null;
end $$;
