-- Everybody's events in an order that never skips one: by transaction, and only transactions that every reader sees as ended.
--
-- An event with a lower number may be committed later than one with a higher; a cursor by time or id would pass it by. Here the
-- page ends below the oldest transaction that is still writing, so whatever commits later lies after the cursor.
create or replace function leasehold.changes(after text default null, rows_max int default 500)
returns table (cursor text, job_id bigint, seq int, run_id bigint, tenant text, at timestamptz, level text, phase text, kind text,
               message text, data jsonb)
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  epoch_ int := cursor_epoch();
  part text[] := regexp_match(coalesce(after, epoch_ || '-0-0-0'), '^([0-9]{1,9})-([0-9]{1,19})-([0-9]{1,18})-([0-9]{1,9})$');
begin
  if part is null then
    raise exception 'the cursor "%" is not one of ours', after
      using errcode = 'LH032', hint = 'Pass what the last row of the page before had in `cursor`, or NULL to begin at the start.';
  elsif part[1]::int <> epoch_ then
    raise exception 'the cursor "%" is from before the database was restored', after
      using errcode = 'LH033', hint = 'Read again from the start (NULL): transaction numbers have begun anew.';
  end if;
  return query
  select epoch_ || '-' || e.xid || '-' || e.job_id || '-' || e.seq,
         e.job_id, e.seq, e.run_id, e.tenant, e.at, e.level, e.phase, e.kind, e.message, e.data
    from events e
   where (e.xid, e.job_id, e.seq) > (part[2]::xid8, part[3]::bigint, part[4]::int)
     and e.xid < pg_snapshot_xmin(pg_current_snapshot())
   order by e.xid, e.job_id, e.seq
   limit least(greatest(rows_max, 1), 10000);
end $$;

create or replace function leasehold.cursor_epoch() returns int
language sql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select c.epoch from cluster c
$$;

-- To be called once, by an administrator, after the data was loaded into another cluster: its transaction numbers begin anew.
create or replace function leasehold.after_restore() returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update events e
     set xid = pg_current_xact_id()
   where e.xid >= pg_snapshot_xmin(pg_current_snapshot());
  update threads t
     set xid = pg_current_xact_id()
   where t.xid >= pg_snapshot_xmin(pg_current_snapshot());
  update messages m
     set xid = pg_current_xact_id()
   where m.xid >= pg_snapshot_xmin(pg_current_snapshot());
  update cluster c
     set epoch = c.epoch + 1;
end $$;
