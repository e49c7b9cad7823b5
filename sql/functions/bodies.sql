-- The first byte of a stream that is not in the database yet.
create or replace function leasehold.shipped(run bigint, stream text) returns bigint
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce(
    (select o.byte_offset + octet_length(o.bytes)
       from output o
      where o.run_id = shipped.run
        and o.stream = shipped.stream
      order by o.byte_offset desc
      limit 1),
    0);
end $$;

-- For how long this run has waited for humans: what was asked at the same time counts once.
create or replace function leasehold.waited(run bigint) returns interval
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce(
    (select sum(upper(each) - lower(each))
       from unnest((select range_agg(tstzrange(i.asked_at, greatest(i.asked_at, coalesce(i.closed_at, clock()))))
                      from interactions i
                     where i.run_id = waited.run)) each
      where not isempty(each)),
    interval '0');
end $$;

-- All that a daemon must know of a run to start it, to take it up, or to settle it late. New columns go to the end.
create or replace view leasehold.run_bodies as
select r.id as run_id, r.token as run_token, r.job_id, r.attempt, r.tenant, r.queue, r.agent, a.adapter, a.command,
       a.env, a.workspace, a.launcher, j.prompt, j.payload, a.limits, a.stop_grace, a.total_timeout,
       a.spawn_timeout, a.first_output_timeout, a.idle_timeout, a.tool_idle_timeout, a.linger_timeout,
       a.output_head, a.output_tail, a.output_limit, r.status, r.started_at, j.cancel_requested_at is not null as cancel_requested,
       leasehold.shipped(r.id, 'stdout') as stdout_shipped, leasehold.shipped(r.id, 'stderr') as stderr_shipped,
       h.mark as events_mark, r.checkpoint, r.unkillable_since is not null as unkillable, a.events_limit,
       j.context,
       r.session_before as session, r.session_evicted,
       a.while_waiting, leasehold.waited(r.id) as waited,
       (a.repository is not null and j.use_repository)
         or (a.workspace is null and (j.session_key is not null or a.adapter <> 'command')) as wants_workspace,
       r.conversation, r.private_config, a.config_files, a.credential, a.credential_name, a.credential_lock, a.credential_wait
  from leasehold.runs r                                     -- lateral with offset 0 is always an index probe
 cross join lateral (select k.* from leasehold.jobs k where k.id = r.job_id offset 0) j
 cross join lateral (select k.mark from leasehold.heads k where k.job_id = r.job_id offset 0) h
 cross join lateral (select k.* from leasehold.agents k where k.name = r.agent offset 0) a;
