-- The bytes of live runs, by (run, stream, offset). Returns the runs that are refused; a chunk that is there already is skipped.
create or replace function leasehold.append_output(runs bigint[], tokens uuid[], streams text[], offsets bigint[], chunks bytea[])
returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '250ms'                                     -- see held_runs()
as $$
begin
  if cardinality(runs) <> any (array[cardinality(tokens), cardinality(streams), cardinality(offsets), cardinality(chunks)]) then
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

-- Forget stored bytes of live runs in [start, end): what scrolled out of the tail that is kept. Rows that lie wholly in it go, a row
-- that reaches beyond its end loses its beginning. Returns the runs that are refused. The last row of a stream never goes as a
-- whole: it says how far we are (see shipped()).
create or replace function leasehold.trim_output(runs bigint[], tokens uuid[], streams text[], starts bigint[], ends bigint[])
returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '250ms'                                     -- see held_runs()
set enable_seqscan = off                                       -- the primary key of output, whatever the statistics say
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  if cardinality(runs) <> any (array[cardinality(tokens), cardinality(streams), cardinality(starts), cardinality(ends)]) then
    perform refuse_arguments('the arrays of trim_output differ in length');
  end if;
  return query
  with said as materialized (
    select t.*, l.run_id is not null as live
      from unnest(trim_output.runs, tokens, streams, starts, ends) as t (run, token, stream, first, past)
      left join live_speakers(trim_output.runs, tokens) l
        on l.run_id = t.run
       and l.run_token = t.token
  ), trimmed as (
    delete from output o
     using (select s.run, s.stream, s.first, least(s.past, newest.byte_offset) as past, s.past as whole
              from said s
             cross join lateral (select n.byte_offset
                                   from output n
                                  where n.run_id = s.run
                                    and n.stream = s.stream
                                  order by n.byte_offset desc
                                  limit 1) newest
             where s.live) range_
     where o.run_id = range_.run
       and o.run_id = any (trim_output.runs)
       and o.stream = range_.stream
       and o.byte_offset >= range_.first
       and o.byte_offset < range_.past
       and o.byte_offset + octet_length(o.bytes) <= range_.whole
  ), cut as (
    update output o
       set byte_offset = s.past,
           bytes = substring(o.bytes from (s.past - o.byte_offset + 1)::int)
      from said s
     cross join lateral (select k.byte_offset
                           from output k
                          where k.run_id = s.run
                            and k.stream = s.stream
                            and k.byte_offset <= s.past
                          order by k.byte_offset desc
                          limit 1) astride                            -- a daemon and its next life may have cut a stream differently:
     where s.live                                                     -- of chunks that overlap at the end only the last is shortened
       and o.run_id = any (trim_output.runs)
       and o.run_id = s.run
       and o.stream = s.stream
       and o.byte_offset = astride.byte_offset
       and o.byte_offset >= s.first
       and o.byte_offset < s.past
       and o.byte_offset + octet_length(o.bytes) > s.past
  )
  select distinct s.run
    from said s
   where not s.live;
end $$;

-- How far the adapters of live runs are: a replay of stdout may begin there. Returns the runs that are refused.
create or replace function leasehold.save_checkpoints(runs bigint[], tokens uuid[], checkpoints jsonb[]) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '250ms'                                     -- see held_runs()
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  if cardinality(runs) <> any (array[cardinality(tokens), cardinality(checkpoints)]) then
    perform refuse_arguments('the arrays of save_checkpoints differ in length');
  end if;
  return query
  with said as materialized (
    select c.*, l.run_id is not null as live
      from unnest(save_checkpoints.runs, tokens, checkpoints) with ordinality as c (run, token, checkpoint, nth)
      left join live_speakers(save_checkpoints.runs, tokens) l
        on l.run_id = c.run
       and l.run_token = c.token
  ), saved as (
    update runs r
       set checkpoint = newest.checkpoint
      from (select distinct on (s.run) s.run, s.checkpoint
              from said s
             where s.live
             order by s.run, s.nth desc) newest
     where r.id = newest.run
       and r.id = any (save_checkpoints.runs)
  )
  select distinct s.run
    from said s
   where not s.live;
end $$;

-- What is stored of a run's stream: rows that begin behind `after` and before `past`, in order, some MiB at a time. For whoever holds
-- the run's token, live or not: a daemon that takes it up has to know again what it had kept.
create or replace function leasehold.read_output(run bigint, run_token uuid, stream text, after bigint, past bigint)
returns table (byte_offset bigint, bytes bytea)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select page.byte_offset, page.bytes
    from (select row_.*, sum(octet_length(row_.bytes)) over (order by row_.byte_offset) - octet_length(row_.bytes) as before
            from (select o.byte_offset, o.bytes
                    from output o
                   where o.run_id = read_output.run
                     and o.stream = read_output.stream
                     and o.byte_offset > read_output.after
                     and o.byte_offset < read_output.past
                     and exists (select from runs r where r.id = read_output.run and r.token = read_output.run_token)
                   order by o.byte_offset
                   limit 1000) row_) page
   where page.before < 1048576
   order by page.byte_offset;
end $$;

-- Those of these (run, token) that are live, with their heads share-locked, ascending: no end passes by before we have committed.
create or replace function leasehold.live_speakers(runs bigint[], tokens uuid[]) returns table (run_id bigint, run_token uuid)
language plpgsql
rows 50
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  with speakers as materialized (
    select distinct r.job_id, s.run, s.token
      from unnest(live_speakers.runs, tokens) s (run, token)
     cross join lateral (select u.job_id from leasehold.runs u where u.id = s.run offset 0) r
     order by r.job_id
  )
  select head.run_id, head.run_token
    from speakers s
   cross join lateral (select h.run_id, h.run_token
                         from heads h
                        where h.job_id = s.job_id
                          and h.run_id = s.run
                          and h.run_token = s.token
                          for share) head;
end $$;

-- Of these runs, those whose job, head or session somebody's open transaction holds (who steers, cancels or resets and does not
-- commit): their words wait, so that those of all others need not. Asked when a lock was not to be had.
create or replace function leasehold.held_runs(runs bigint[]) returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  with mine as materialized (
    select r.id, r.job_id, r.tenant, r.agent, session_key(r) as key from runs r where r.id = any (held_runs.runs)
  ), heads_ as materialized (
    select h.job_id from heads h where h.job_id = any (array(select m.job_id from mine m)) for update skip locked
  ), jobs_ as materialized (
    select j.id from jobs j where j.id = any (array(select m.job_id from mine m)) for update skip locked
  ), sessions_ as materialized (
    select s.id from sessions s join mine m using (tenant, agent, key) for update of s skip locked
  )
  select m.id
    from mine m
   where not exists (select from heads_ h where h.job_id = m.job_id)
      or not exists (select from jobs_ j where j.id = m.job_id)
      or exists (select from sessions s
                  where s.tenant = m.tenant
                    and s.agent = m.agent
                    and s.key = m.key
                    and not exists (select from sessions_ f where f.id = s.id));
end $$;
