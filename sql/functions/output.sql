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
