-- Lanes and shares: who may have due work, in the order of virtual time. A lane is (queue, tenant, agent, repository); the lanes of a
-- tenant share its turn, so that a tenant gains nothing by having many.
--
-- Only the claim writes here, one claim at a time. What turns out to be empty is closed, what is stopped by a limit, a pause or a hold
-- is parked, and neither is looked at again until a note comes. Nothing is lost by that: whoever brings work or makes room leaves the
-- note (a row of `arrivals`) in its own transaction, and what the claim counted was committed before. A note whose commit it has not
-- seen is still there for the next claim.

-- Hear the notes: lanes with new work, keys that may be free, and, as the answer, names of what may have room again.
create or replace function leasehold.admit_arrivals(out room_on text[])
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  heard record;
  one record;
begin
  if not exists (select from arrivals) then
    return;
  end if;
  with drained as (
    delete from arrivals a
     where a.id in (select b.id from arrivals b order by b.id limit 5000)
    returning a.lane, a.queue, a.tenant, a.agent, a.repository, a.account, a.key
  )
  select coalesce(array_agg(d.lane) filter (where d.lane is not null), '{}') as lanes,
         array_agg(d.queue) filter (where d.lane is not null) as queues,
         array_agg(d.tenant) filter (where d.lane is not null) as tenants,
         array_agg(d.agent) filter (where d.lane is not null) as agents,
         array_agg(d.repository) filter (where d.lane is not null) as repositories,
         array_agg(distinct jsonb_build_array(d.tenant, d.key)) filter (where d.key is not null) as keys,
         jsonb_agg(distinct to_jsonb(d)) filter (where d.lane is null and d.key is null) as notes
    into heard
    from drained d;
  if jsonb_path_exists(heard.notes, '$[*] ? (@.account != null && @.agent != null)') then
    update lanes l                                             -- its account has changed: what it was parked on is no longer its own
       set parked_on = 'agent:' || l.agent
     where l.parked_on like 'account:%'
       and l.agent in (select n ->> 'agent' from jsonb_array_elements(heard.notes) n where n ->> 'account' is not null);
  end if;
  perform open_lanes(heard.lanes, heard.queues, heard.tenants, heard.agents, heard.repositories);
  for one in select k ->> 0 as tenant, k ->> 1 as key from unnest(heard.keys) k loop
    perform promote(one.tenant, one.key);
  end loop;
  room_on := array(
    select distinct said.key
      from jsonb_to_recordset(heard.notes) n (queue text, tenant text, agent text, repository text, account text)
     cross join lateral (values ('tenant:' || n.tenant), ('queue:' || n.queue), ('agent:' || n.agent), ('account:' || n.account),
                                ('repository:' || n.tenant || '/' || n.repository)) said (key)
     where said.key is not null);
end $$;

-- Jobs whose time has come.
create or replace function leasehold.admit_due() returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  come record;
begin
  if not exists (select from jobs j where j.status = 'queued' and not j.due and j.run_at <= clock()) then
    return;
  end if;
  with changed as (
    update jobs j
       set due = true
     where j.id in (select i.id
                      from jobs i
                     where i.status = 'queued'
                       and not i.due
                       and i.run_at <= clock()
                     order by i.run_at
                     limit 1000
                       for update skip locked)
    returning j.lane, j.queue, j.tenant, j.agent, j.repository
  )
  select coalesce(array_agg(c.lane), '{}') as lanes, array_agg(c.queue) as queues, array_agg(c.tenant) as tenants,
         array_agg(c.agent) as agents, array_agg(c.repository) as repositories into come
    from changed c;
  perform open_lanes(come.lanes, come.queues, come.tenants, come.agents, come.repositories);
end $$;

-- Lanes that have due work now, and their tenants. A newcomer, and one who comes back, goes before the ties of this round, once: nothing
-- is gained by coming often. What is parked stays so: work is not what it waits for.
create or replace function leasehold.open_lanes(lanes bigint[], queues text[], tenants text[], agents text[], repositories text[])
returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  insert into leasehold.lanes as l (lane, queue, tenant, agent, repository, pass)
  select n.lane, n.queue, n.tenant, n.agent, n.repository,
         coalesce((select ceil(k.pass) - 0.5 from leasehold.lanes k
                    where k.tenant = n.tenant and k.active order by k.pass, k.lane limit 1), 0)
    from (select x.lane, min(x.queue) as queue, min(x.tenant) as tenant, min(x.agent) as agent, max(x.repository) as repository
            from unnest(open_lanes.lanes, open_lanes.queues, open_lanes.tenants, open_lanes.agents, open_lanes.repositories)
              x (lane, queue, tenant, agent, repository)
           group by x.lane) n
      on conflict (lane) do update
     set active = true,
         pass = greatest(l.pass, excluded.pass)
   where not l.active
     and l.parked_on is null;
  perform open_shares(open_lanes.tenants);
end $$;

create or replace function leasehold.open_shares(tenants text[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  first_ double precision := coalesce((select ceil(s.pass) from shares s where s.active order by s.pass, s.tenant limit 1),
                                      (select max(s.pass) from shares s), 0) - 0.5;
begin
  insert into shares as s (tenant, pass)
  select distinct n.tenant, first_
    from unnest(open_shares.tenants) n (tenant)
      on conflict (tenant) do update
     set active = true,
         pass = greatest(s.pass, first_)
   where not s.active
     and not s.parked;
end $$;

-- Look again at what is parked on these: as much as there is room for. Answers those on which more is parked, which must not be forgotten.
create or replace function leasehold.unpark(keys text[], out more text[], out woken bigint)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  one text;
  free int;
  tenants text[];
begin
  more := '{}';
  woken := 0;
  foreach one in array coalesce(unpark.keys, '{}') loop
    if one like 'tenant:%' then
      update shares s
         set parked = false
       where s.tenant = substr(one, 8)
         and s.parked
         and free_of(one) > 0;
      if found then
        perform open_shares(array[substr(one, 8)]);
        woken := woken + 1;
      end if;
    elsif exists (select from lanes l where l.parked_on = one) then
      free := free_of(one);
      with again as (
        update lanes l
           set active = true,
               parked_on = null
         where l.lane = any (array(select k.lane from lanes k where k.parked_on = one order by k.turn, k.lane limit free))
        returning l.tenant
      )
      select array_agg(distinct a.tenant) into tenants from again a;
      if tenants is not null then
        perform open_shares(tenants);
        woken := woken + 1;
        more := more || array(select one where exists (select from lanes l where l.parked_on = one));
      end if;
    end if;
  end loop;
end $$;

-- What was not looked at again for want of free places is for the next claim.
create or replace function leasehold.keep_notes(keys text[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  insert into arrivals (tenant, queue, agent, account, repository)
  select case n.scope when 'repository' then split_part(n.name, '/', 1) end,
         case n.scope when 'queue' then n.name end,
         case n.scope when 'agent' then n.name end,
         case n.scope when 'account' then n.name end,
         case n.scope when 'repository' then substr(n.name, strpos(n.name, '/') + 1) end
    from (select split_part(k, ':', 1) as scope, substr(k, strpos(k, ':') + 1) as name from unnest(keep_notes.keys) k) n;
end $$;

-- A hold that staggers after its end is a standing note.
create or replace function leasehold.standing_notes() returns text[]
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return array(select h.scope || ':' || h.name
                 from holds h
                where h.until <= clock()
                  and h.stagger is not null
                  and h.scope not in ('all', 'host'));
end $$;
