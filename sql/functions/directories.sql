-- The directories sessions/<conversation> of runs that have a configuration of their own: the session keeps it, or it goes.

-- A run with a configuration of its own has the directory sessions/<conversation> on its host, from its start on: its session has said
-- itself, and keeps that.
create or replace function leasehold.keep_directory(run leasehold.runs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  place record;
begin
  select w.host_id, w.keeper_id, 'sessions/' || (run).conversation as path into place from workers w where w.id = (run).worker_id;
  update sessions s
     set kind = 'directory',
         host_id = place.host_id,
         keeper_id = place.keeper_id,
         path = place.path,
         expires_at = clock() + (select a.session_keep from agents a where a.name = s.agent),
         stored_at = clock()
   where s.last_run = (run).id
     and s.conversation = (run).conversation
     and s.epoch = (run).session_epoch
     and s.kind <> 'evicted'
     and not exists (select from sessions o
                      where o.kind = 'directory' and o.id <> s.id
                        and (o.host_id, o.keeper_id, o.path) = (place.host_id, place.keeper_id, place.path));
end $$;

-- Such a run has ended: its session has the directory for some time from now on, or nobody needs it.
create or replace function leasehold.settle_directory(run leasehold.runs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  place record;
begin
  select w.host_id, w.keeper_id, 'sessions/' || (run).conversation as path into place from workers w where w.id = (run).worker_id;
  update sessions s
     set expires_at = clock() + (select a.session_keep from agents a where a.name = s.agent)
   where s.kind = 'directory'
     and s.path = place.path
     and s.host_id = place.host_id
     and s.keeper_id = place.keeper_id;
  if not found then
    perform want_removal(place.host_id, place.keeper_id, 'session', place.path);
  end if;
end $$;

-- The session has no directory any more; what there is goes when no run is in it.
create or replace function leasehold.leave_directory(session leasehold.sessions) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if (session).kind <> 'directory' then
    return;
  end if;
  perform want_removal((session).host_id, (session).keeper_id, 'session', (session).path);
  update sessions s
     set kind = 'none',
         host_id = null,
         keeper_id = null,
         path = null,
         bytes = null,
         expires_at = null,
         stored_at = null
   where s.id = (session).id;
end $$;
