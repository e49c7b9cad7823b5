-- Which jobs a claim takes: turns are dealt to tenants by virtual time, a tenant's turns to its lanes, and only then jobs are looked at,
-- exactly as many as there are turns. The cost hangs on the number of turns, not on how much waits or what is parked.

-- Pick and lock up to `room` jobs. What stops a tenant or a lane parks it. `avoid` are tenants whose next jobs somebody else has locked;
-- `depth` widens the look when a turn before has found nothing but what is stopped. `moved`: it is worth looking again.
create or replace function leasehold.choose(room int, listens_to text[], depth int, inout avoid text[], out jobs bigint[], out moved boolean)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  dealt record;
  taken record;
  known int := cardinality(avoid);
begin
  dealt := deal(choose.room, choose.listens_to, choose.depth, choose.avoid);
  moved := dealt.moved;
  if dealt.lanes is null then
    return;
  end if;
  with locked as materialized (
    select d.lane, d.place, j.id
      from unnest(dealt.lanes, dealt.turns) with ordinality d (lane, turns, place)
     cross join lateral (
       select k.id
         from leasehold.jobs k
        where k.lane = d.lane
          and k.status = 'queued'
          and k.due
        order by k.rank, k.id
        limit d.turns
          for update skip locked) j
     limit choose.room                                        -- in the order of turns; what lies behind is not even looked at
  ), counted as materialized (
    select k.lane, count(*) as n, array_agg(k.id) as jobs from locked k group by k.lane
  ), lane_pays as (
    update lanes l
       set pass = l.pass + c.n
      from counted c
     where l.lane = c.lane
       and l.lane = any (array(select k.lane from counted k))
    returning l.tenant, c.n
  ), tenant_pays as (
    update shares s
       set pass = s.pass + p.n::float8 / coalesce((select t.weight from tenants t where t.name = s.tenant), 1)
      from (select y.tenant, sum(y.n) as n from lane_pays y group by y.tenant) p
     where s.tenant = p.tenant
       and s.tenant = any (dealt.tenants)
  )
  select array(select i from counted c, unnest(c.jobs) i order by i) as jobs,
         array(select d.lane
                 from unnest(dealt.lanes, dealt.turns) with ordinality d (lane, turns, place)
                where d.turns > coalesce((select c.n from counted c where c.lane = d.lane), 0)
                  and (d.place < (select max(k.place) from locked k) or (select count(*) from locked) < choose.room)) as short,
         array(select c.lane from counted c) as served into taken;
  jobs := nullif(taken.jobs, '{}');
  if taken.short <> '{}' then
    if close_lanes(taken.short, taken.jobs) then              -- in any case: an `or` would not call it when something else has moved
      moved := true;
    end if;
    avoid := avoid || array(select l.tenant from lanes l
                             where l.lane = any (taken.short)
                               and l.active
                               and l.lane <> all (taken.served));
    moved := moved or cardinality(avoid) > known;
  end if;
end $$;

-- Lanes without due work, but for the jobs just taken, and tenants without lanes.
create or replace function leasehold.close_lanes(lanes bigint[], taken bigint[]) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  tenants text[];
begin
  with closed as (
    update leasehold.lanes l
       set active = false
     where l.lane = any (close_lanes.lanes)
       and coalesce((select false                          -- not exists, as it cannot become a join: always the index of the lane
                       from jobs j
                      where j.lane = l.lane
                        and j.status = 'queued'
                        and j.due
                        and j.id <> all (close_lanes.taken)
                      limit 1), true)
    returning l.tenant
  )
  select array_agg(c.tenant) into tenants from closed c;
  perform close_shares(tenants);
  return tenants is not null;
end $$;

create or replace function leasehold.close_shares(tenants text[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update shares s
     set active = false
   where s.tenant = any (close_shares.tenants)
     and s.active
     and coalesce((select false from lanes l where l.tenant = s.tenant and l.active limit 1), true);
end $$;

-- Deal `room` turns (and more, if much of what was seen before was of no use): which lanes may take how many jobs each, in the order
-- of their turns, after every limit. Lanes and tenants that something stops are parked.
create or replace function leasehold.deal(
  room int, listens_to text[], depth int, avoid text[], out lanes bigint[], out turns int[], out tenants text[], out moved boolean)
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  free jsonb := free_of_limits();
  held boolean := exists (select from holds);
  stopped text[];
begin
  with fronts as materialized (
    select s.tenant, s.pass, coalesce(t.weight, 1) as weight,
           case when coalesce(t.paused, false) then 0
                when held and exists (select from leasehold.holds h
                                       where h.scope = 'tenant' and h.name = s.tenant and holds_now(h.until, h.stagger, h.released)) then 0
                else coalesce((free ->> ('tenant:' || s.tenant))::int, t.max_running, room) end as free
      from (select k.tenant, k.pass
              from shares k
             where k.active
               and k.tenant <> all (avoid)
               and (listens_to is null
                    or (select true from leasehold.lanes l where l.tenant = k.tenant and l.active and l.queue = any (listens_to) limit 1))
             order by k.pass, k.tenant
             limit room * depth) s
      left join lateral (select k.paused, k.weight, k.max_running from leasehold.tenants k where k.name = s.tenant offset 0) t on true
  ), parked as (
    update shares k
       set active = false,
           parked = true
     where k.tenant = any (array(select f.tenant from fronts f where f.free <= 0))
    returning k.tenant
  ), seats as materialized (
    select d.tenant, d.weight, d.pass, count(*)::int as n
      from (select f.tenant, f.weight, f.pass
              from fronts f
             cross join lateral generate_series(1, least(f.free, room)) seat
             order by f.pass + seat::float8 / f.weight, f.tenant
             limit room * depth) d
     group by d.tenant, d.weight, d.pass
  ), seen as materialized (
    select s.tenant, s.weight, s.pass as tenant_pass, s.n, l.*, stop.parked_on
      from seats s
     cross join lateral (
       select k.lane, k.pass, k.agent, k.queue, k.repository
         from leasehold.lanes k
        where k.tenant = s.tenant
          and k.active
          and (listens_to is null or k.queue = any (listens_to))
        order by k.pass, k.lane
        limit s.n * depth) k
     cross join lateral (
       select k.*,
              coalesce((free ->> ('agent:' || k.agent))::int, a.max_running, room) as agent_free,
              coalesce((free ->> ('queue:' || k.queue))::int, q.max_running, room) as queue_free,
              coalesce((free ->> ('repository:' || s.tenant || '/' || k.repository))::int, p.max_running, room) as repository_free,
              coalesce(a.status, 'gone') as agent_status, coalesce(q.paused, false) as queue_paused
         from (select) nothing
         left join lateral (select x.status, x.max_running from leasehold.agents x where x.name = k.agent offset 0) a on true
         left join lateral (select x.paused, x.max_running from leasehold.queues x where x.name = k.queue offset 0) q on true
         left join lateral (select x.max_running from leasehold.repositories x
                             where x.tenant = s.tenant and x.name = k.repository offset 0) p on true) l
     cross join lateral (
       select case when l.agent_status <> 'enabled' or l.agent_free <= 0 then 'agent:' || l.agent
                   when l.queue_paused or l.queue_free <= 0 then 'queue:' || l.queue
                   when l.repository_free <= 0 then 'repository:' || s.tenant || '/' || l.repository
                   when held then (select h.scope || ':' || h.name
                                     from holds_on(null, l.queue, l.agent, null) h
                                    where h.scope in ('queue', 'agent', 'account')
                                    union all
                                   select h.scope || ':' || h.name
                                     from leasehold.holds h
                                    where h.scope = 'repository'
                                      and h.name = s.tenant || '/' || l.repository
                                      and holds_now(h.until, h.stagger, h.released)
                                    limit 1) end as parked_on) stop
  ), stopped_lanes as (
    update lanes k
       set active = false,
           parked_on = x.parked_on,
           turn = x.tenant_pass
      from seen x
     where k.lane = x.lane
       and x.parked_on is not null
       and k.lane = any (array(select y.lane from seen y where y.parked_on is not null))
    returning k.tenant
  ), places as (
    select o.*, o.tenant_pass + o.place::float8 / o.weight as turn
      from (select x.*, row_number() over (partition by x.tenant order by x.pass + seat, x.lane) as place
              from seen x
             cross join lateral generate_series(1, x.n) seat
             where x.parked_on is null) o
     where o.place <= o.n
  ), allowed as (
    select p.lane, p.tenant, p.turn,
           row_number() over (partition by p.agent order by p.turn, p.lane) <= p.agent_free
           and row_number() over (partition by p.queue order by p.turn, p.lane) <= p.queue_free
           and row_number() over (partition by p.tenant, p.repository order by p.turn, p.lane) <= p.repository_free as ok
      from places p
  ), open_ as (
    select a.lane, a.tenant, count(*)::int as n, min(a.turn) as turn from allowed a where a.ok group by a.lane, a.tenant
  )
  select (select array_agg(o.lane order by o.turn, o.lane) from open_ o), (select array_agg(o.n order by o.turn, o.lane) from open_ o),
         (select array_agg(distinct o.tenant) from open_ o),
         array(select k.tenant from stopped_lanes k) || array(select s.tenant from seats s
                                                               where not exists (select from seen x where x.tenant = s.tenant)),
         exists (select from parked)
    into deal.lanes, deal.turns, deal.tenants, stopped, deal.moved;
  if stopped <> '{}' then
    perform close_shares(stopped);
    moved := true;
  end if;
end $$;
