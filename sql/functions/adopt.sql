-- A new life of an instance takes over: it closes the older ones and keeps the runs that the same keeper still holds.
--
-- In one transaction, with the worker rows locked in ascending order: only older lives are closed, a closed worker is refused,
-- and another keeper identity (a cloned image) is left alone. Runs the keeper does not know any more end as lost. Repeatable:
-- kept runs that are the worker's already are named again.
create or replace function leasehold.adopt(worker bigint, token uuid, kept_runs bigint[], kept_tokens uuid[], lease interval)
returns table (what text, run_id bigint, run_token uuid)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  self workers;
  found_ record;
begin
  if cardinality(kept_runs) is distinct from cardinality(kept_tokens) or coalesce(adopt.lease <= interval '0', true) then
    perform refuse_arguments('adopt needs one token for each kept run, and a lease above 0');
  end if;
  select w.* into self from workers w where w.id = adopt.worker;
  perform from workers w
    where w.instance = self.instance
      and w.keeper_id = self.keeper_id
      and w.id <= self.id
      and (w.state = 'alive' or exists (select from runs r where r.worker_id = w.id and r.ended_at is null))
    order by w.id
      for update;
  update workers w
     set lease_expires_at = clock() + adopt.lease,
         lease = adopt.lease,
         renewals = w.renewals + 1
   where w.id = adopt.worker
     and w.token = adopt.token
     and w.state = 'alive'
     and w.lease_expires_at > clock();
  if not found then
    perform refuse_worker(adopt.worker, adopt.token);
  end if;
  perform set_config('leasehold.actor', 'adopt', true);
  update workers w
     set state = 'closed',
         ended_at = clock(),
         lease_expires_at = least(w.lease_expires_at, clock())
   where w.instance = self.instance
     and w.keeper_id = self.keeper_id
     and w.id < self.id
     and w.state = 'alive';
  perform set_config('leasehold.actor', '', true);

  for found_ in
    select r.id, old.boot_id,
           exists (select from unnest(kept_runs, kept_tokens) k (id, token) where k.id = r.id and k.token = r.token) as kept
      from workers old
      join runs r
        on r.worker_id = old.id
       and r.ended_at is null
     where old.instance = self.instance
       and old.keeper_id = self.keeper_id
       and old.id <= self.id
     order by r.job_id
  loop
    what := take_or_end(self, found_.id, found_.kept, found_.boot_id);
    if what is not null then
      select r.id, r.token into run_id, run_token from runs r where r.id = found_.id;
      return next;
    end if;
  end loop;
end $$;

-- One live run of this or an older life: 'adopted', 'ended', or null if there was nothing to do.
create or replace function leasehold.take_or_end(self leasehold.workers, run bigint, kept boolean, boot_id text) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := lock_run(run);
  why text := case when take_or_end.boot_id <> (self).boot_id then 'host_reboot'            -- which nothing survives
                   when current_.unkillable_since is not null then 'unkillable'
                   else 'daemon_restart' end;
begin
  if current_.ended_at is not null then
    return null;                                                      -- its old worker has just finished it
  elsif not kept then
    if current_.worker_id = (self).id then
      return null;                                                    -- our own, claimed since
    end if;
    perform end_run('adopt', current_, 'lost', why,
                    format('worker %s of %s left it, and its keeper does not know it', current_.worker_id, (self).instance));
    return 'ended';
  elsif current_.worker_id <> (self).id then
    update runs r
       set worker_id = (self).id
     where r.id = current_.id;
    perform note(current_.job_id, current_.tenant, current_.id, 'adopted', null,
                 jsonb_build_object('worker', (self).id, 'from', current_.worker_id));
  end if;
  return 'adopted';
end $$;
