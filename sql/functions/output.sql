-- The bytes of live runs, by (run, stream, offset). Returns the runs that are refused; a chunk that is there already is skipped.
create or replace function leasehold.append_output(runs bigint[], tokens uuid[], streams text[], offsets bigint[], chunks bytea[])
returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if cardinality(runs) <> all (array[cardinality(tokens), cardinality(streams), cardinality(offsets), cardinality(chunks)]) then
    perform refuse_arguments('the arrays of append_output differ in length');
  end if;
  return query
  with said as materialized (
    select o.*, r.job_id, r.tenant
      from unnest(append_output.runs, tokens, streams, offsets, chunks) as o (run, token, stream, byte_offset, bytes)
      left join lateral (select u.job_id, u.tenant from leasehold.runs u where u.id = o.run offset 0) r on true
  ), speakers as materialized (
    select distinct s.job_id, s.run, s.token
      from said s
     where s.job_id is not null
     order by s.job_id
  ), locked as materialized (
    select head.run_id, head.run_token
      from speakers s
     cross join lateral (select h.run_id, h.run_token
                           from heads h
                          where h.job_id = s.job_id
                            and h.run_id = s.run
                            and h.run_token = s.token
                            for share) head
  ), written as (
    insert into output (run_id, stream, byte_offset, job_id, tenant, bytes)
    select s.run, s.stream, s.byte_offset, s.job_id, s.tenant, s.bytes
      from said s
      join locked l
        on l.run_id = s.run
       and l.run_token = s.token
        on conflict (run_id, stream, byte_offset) do nothing
  )
  select distinct s.run
    from said s
   where not exists (select from locked l where l.run_id = s.run and l.run_token = s.token);
end $$;

-- Forget output of live runs that lies wholly in [start, end): what scrolled out of the tail that is kept. Returns the runs refused.
create or replace function leasehold.trim_output(runs bigint[], tokens uuid[], streams text[], starts bigint[], ends bigint[])
returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  if cardinality(runs) <> all (array[cardinality(tokens), cardinality(streams), cardinality(starts), cardinality(ends)]) then
    perform refuse_arguments('the arrays of trim_output differ in length');
  end if;
  return query
  with said as materialized (
    select s.*, locked.job_id is not null as live
      from unnest(trim_output.runs, tokens, streams, starts, ends) as s (run, token, stream, start_, end_)
      left join lateral (select h.job_id
                           from heads h
                          where h.job_id = (select r.job_id from leasehold.runs r where r.id = s.run)
                            and h.run_id = s.run
                            and h.run_token = s.token
                            for share) locked on true
  ), gone as (
    delete from output o
     using said s
     where s.live
       and o.run_id = s.run
       and o.stream = s.stream
       and o.byte_offset >= s.start_
       and o.byte_offset < s.end_
       and o.byte_offset + octet_length(o.bytes) <= s.end_
  )
  select distinct s.run
    from said s
   where not s.live;
end $$;

-- Where a daemon that takes these runs up may go on reading. Returns the runs that are refused.
create or replace function leasehold.save_checkpoints(runs bigint[], tokens uuid[], checkpoints jsonb[]) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  if cardinality(runs) <> all (array[cardinality(tokens), cardinality(checkpoints)]) then
    perform refuse_arguments('the arrays of save_checkpoints differ in length');
  end if;
  return query
  with saved as (
    update leasehold.runs r
       set checkpoint = s.checkpoint
      from unnest(save_checkpoints.runs, tokens, checkpoints) as s (run, token, checkpoint)
     where r.id = s.run
       and r.token = s.token
       and r.ended_at is null
    returning r.id
  )
  select distinct n.run
    from unnest(save_checkpoints.runs) as n (run)
   where n.run not in (select saved.id from saved);
end $$;
