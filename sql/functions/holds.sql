-- Holds: what must not start now, and until when. The claim passes by what a live hold covers, whatever else is free; what runs goes on.
--
-- After `until` a hold with a stagger lets one start through for each stagger that has passed, so that what waited together does
-- not come back together; the claim removes a hold when it has nothing left to say.

-- Say that nothing of this scope may start. The same scope, name and reason again replaces the earlier hold.
create or replace function leasehold.hold(
  scope text, name text, reason text, until timestamptz default null, message text default null, stagger interval default null)
returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  scope_ text := lower(btrim(hold.scope));
  name_ text := held_name(scope_, hold.name);
  mistake text := case
    when nullif(btrim(hold.reason), '') is null then 'it has no reason'
    when hold.stagger <= interval '0' then 'its stagger is not above 0'
    when hold.stagger is not null and hold.until is null then 'it has a stagger but no end'
    when not isfinite(hold.until) then 'its end is not a moment in time'
  end;
begin
  if mistake is not null then
    raise exception 'cannot hold % %: %', scope_, name_, mistake
      using errcode = 'LH071', hint = 'SELECT leasehold.hold(''queue'', ''nightly'', ''maintenance'', now() + interval ''1 hour'');';
  end if;
  insert into holds as h (scope, name, reason, message, until, stagger)
  values (scope_, name_, btrim(hold.reason), hold.message, hold.until, hold.stagger)
      on conflict on constraint holds_pkey do update
     set message = excluded.message,
         until = excluded.until,
         stagger = excluded.stagger,
         released = 0,
         created_at = excluded.created_at;
end $$;

-- Lift the hold with this reason, or all of this scope and name. Answers how many there were.
create or replace function leasehold.lift(scope text, name text, reason text default null) returns int
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  scope_ text := lower(btrim(lift.scope));
  name_ text := held_name(scope_, lift.name);
  lifted int;
begin
  delete from holds h                                        -- the trigger on holds rings
   where h.scope = scope_
     and h.name = name_
     and (lift.reason is null or h.reason = btrim(lift.reason));
  get diagnostics lifted = row_count;
  return lifted;
end $$;

-- How the name of a scope is written in holds, or a refusal.
create or replace function leasehold.held_name(scope text, name text) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  plain text := coalesce(btrim(held_name.name), '');
begin
  if coalesce(held_name.scope, '') not in ('all', 'tenant', 'queue', 'agent', 'account', 'host', 'repository') then
    raise exception 'there is no scope %', coalesce('"' || held_name.scope || '"', 'NULL')
      using errcode = 'LH070', hint = 'Use all, tenant, queue, agent, account, host or repository.';
  elsif (held_name.scope = 'all') <> (plain = '') then
    raise exception 'a hold on % has %', held_name.scope, case plain when '' then 'no name' else 'a name' end
      using errcode = 'LH071', hint = 'Give the name of what is held: ''acme''; tenant/name for a repository; an empty one for all.';
  end if;
  return case held_name.scope when 'agent' then lower(plain) else plain end;
end $$;

-- Does a hold with these values keep things from starting at this moment?
create or replace function leasehold.holds_now(until timestamptz, stagger interval, released int) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return until is null
      or until > clock()
      or released >= starts_through(until, stagger);
end $$;

-- How many starts a hold has let through since its end; any number without a stagger.
create or replace function leasehold.starts_through(until timestamptz, stagger interval) returns double precision
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when stagger is null then 1e9
              else 1 + floor(extract(epoch from clock() - until)::float8 / extract(epoch from stagger)::float8) end;
end $$;

-- The live holds that cover a job like this. One probe of the primary key for each scope.
create or replace function leasehold.holds_on(tenant text, queue text, agent text, repository text, host text default null)
returns setof leasehold.holds
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select h.*
    from (values ('all', ''), ('tenant', holds_on.tenant), ('queue', holds_on.queue), ('agent', holds_on.agent),
                 ('account', coalesce((select a.account from agents a where a.name = holds_on.agent), holds_on.agent)),
                 ('repository', holds_on.tenant || '/' || holds_on.repository), ('host', holds_on.host)) covers (scope, name)
   cross join lateral (select k.* from leasehold.holds k where k.scope = covers.scope and k.name = covers.name offset 0) h
   where holds_now(h.until, h.stagger, h.released);
end $$;

-- Count the starts that a hold after its end has let through. Somebody who is changing the hold just now makes the count anew anyway.
create or replace function leasehold.count_released(jobs bigint[], host text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update holds h
     set released = h.released + 1
    from (select k.scope, k.name, k.reason
            from holds k
           where k.until <= clock()
             and k.stagger is not null
             for update skip locked) past
   where (h.scope, h.name, h.reason) = (past.scope, past.name, past.reason)
     and exists (select from leasehold.jobs j
                  where j.id = any (count_released.jobs)
                    and h.name = case h.scope
                      when 'all' then ''
                      when 'tenant' then j.tenant
                      when 'queue' then j.queue
                      when 'agent' then j.agent
                      when 'account' then coalesce((select a.account from agents a where a.name = j.agent), j.agent)
                      when 'repository' then j.tenant || '/' || j.repository
                      when 'host' then count_released.host
                    end);
end $$;

-- Holds whose end has come. Without a stagger they are gone; with one they go when nothing has asked for a while, or after 1000 starts.
create or replace function leasehold.sweep_holds() returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  delete from holds h
   where (h.scope, h.name, h.reason) in (
           select k.scope, k.name, k.reason
             from holds k
            where k.until <= clock()
              and (k.stagger is null
                   or k.released >= 1000
                   or k.until + k.stagger * (k.released + 60) <= clock())
              for update skip locked);
end $$;

-- When the next hold that concerns this worker ends or lets the next start through. Where one could start already, the claim has been.
create or replace function leasehold.holds_change(worker bigint) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select min(case when h.until > clock() then h.until
                          when holds_now(h.until, h.stagger, h.released) then h.until + h.stagger * h.released
                          when h.stagger is null then clock() end)
            from workers w
           cross join holds h
           where w.id = holds_change.worker
             and h.until is not null
             and (h.scope <> 'host' or h.name = w.host_id)
             and (h.scope <> 'queue' or w.queues is null or h.name = any (w.queues)));
end $$;
