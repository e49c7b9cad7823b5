-- The manners of every list: whose rows, how many, where the next page begins; and how far each reader has read a thread.
--
-- A cursor names the place of a row in the order of its list, so that the next page begins right behind it whatever was inserted
-- meanwhile. A page without rows has no cursor: keep the one you came with. What is not a cursor of this list is an error.

-- The tenant a call is about: the one named, if the caller may act for it, else the caller's own.
create or replace function leasehold.tenant_asked(tenant text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := coalesce(nullif(btrim(tenant_asked.tenant), ''), my_default_tenant());
begin
  if not may_act_for(owner) then
    raise exception 'the login "%" may not act for tenant "%"', session_user, owner
      using errcode = 'LH030', hint = 'Leave tenant out, or ask an administrator for a row in leasehold.tenant_logins.';
  end if;
  return owner;
end $$;

-- The tenants whose rows the caller may see; NULL: all.
create or replace function leasehold.tenants_seen() returns text[]
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when may_act_for(null) is not true then my_tenants() end;
end $$;

-- How many rows: the usual number if nobody says, never less than one, never more than the most.
create or replace function leasehold.page_size(wanted int, usual int, most int) returns int
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return least(greatest(coalesce(wanted, usual), 1), most);
end $$;

-- The parts of a cursor, by a regular expression; NULL for the start.
create or replace function leasehold.cursor_parts(cursor text, shape text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  parts text[] := regexp_match(cursor, '^' || shape || '$');
begin
  if cursor is not null and parts is null then
    perform refuse_cursor(cursor);
  end if;
  return parts;
end $$;

create or replace function leasehold.refuse_cursor(cursor text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'the cursor % is not one of this list and order', quote_literal(left(cursor, 100))
    using errcode = 'LH090', hint = 'Pass what the last row of the page before had in `cursor`, or NULL to begin at the start.';
end $$;

-- A name within a cursor is written in hexadecimal digits.
create or replace function leasehold.name_in_cursor(cursor text, digits text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return convert_from(decode(digits, 'hex'), 'UTF8');
exception when data_exception then
  perform refuse_cursor(cursor);
end $$;

-- A moment as a whole number, and back, without losing a microsecond. Cursors take 18 digits, 17 below zero: more is no moment.
create or replace function leasehold.to_micros(at timestamptz) returns bigint
language sql immutable
set search_path = pg_catalog
as $$
  select (extract(epoch from at) * 1000000)::bigint
$$;

create or replace function leasehold.from_micros(micros bigint) returns timestamptz
language sql immutable
set search_path = pg_catalog
as $$
  select timestamptz 'epoch' + micros * interval '1 microsecond'
$$;

create or replace function leasehold.refuse_choice(what text, said text, choices text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'there is no % %', what, quote_literal(left(said, 100))
    using errcode = 'LH091', hint = format('Use one of: %s.', choices);
end $$;

-- A reader of the caller's login.
create or replace function leasehold.reader_asked(reader text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if reader is null or btrim(reader) = '' or octet_length(reader) > 200 then
    raise exception 'a reader needs a name of 1 to 200 bytes'
      using errcode = 'LH092', hint = 'Use a short name or id of the person who reads; readers belong to your login.';
  end if;
  return btrim(reader);
end $$;

-- This reader has seen the thread as it was at `version`: the one that was read, not the one of now. Going back does nothing.
-- Answers whether something has happened since.
create or replace function leasehold.mark_thread_read(thread text, reader text, version bigint, tenant text default null) returns boolean
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  owner text := tenant_asked(mark_thread_read.tenant);
  who text := reader_asked(mark_thread_read.reader);
  now_at bigint;
begin
  select t.version into now_at
    from threads t
   where t.tenant = owner
     and t.thread = btrim(mark_thread_read.thread);
  if not found then
    perform refuse_unknown_thread(mark_thread_read.thread);
  elsif mark_thread_read.version is null or mark_thread_read.version < 0 or mark_thread_read.version > now_at then
    raise exception 'thread "%" has no version % that could have been read', btrim(mark_thread_read.thread), coalesce(mark_thread_read.version::text, 'NULL')
      using errcode = 'LH094', hint = 'Pass the `version` of the row that was shown to the reader.';
  end if;
  insert into read_cursors as c (tenant, thread, login, reader, version)
  values (owner, btrim(mark_thread_read.thread), session_user, who, mark_thread_read.version)
      on conflict (tenant, thread, login, reader) do update
     set version = excluded.version,
         read_at = excluded.read_at
   where c.version < excluded.version;
  return now_at > greatest(mark_thread_read.version, (select c.version
                                                        from read_cursors c
                                                       where c.tenant = owner
                                                         and c.thread = btrim(mark_thread_read.thread)
                                                         and c.login = session_user
                                                         and c.reader = who));
end $$;

create or replace function leasehold.refuse_unknown_thread(thread text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'there is no thread %', coalesce(quote_literal(left(refuse_unknown_thread.thread, 100)), 'NULL')
    using errcode = 'LH093', hint = 'SELECT thread, status FROM leasehold.threads lists those you may see.';
end $$;

-- Threads that have changed since the cursor, each as it is now, in an order that never skips a late commit: by transaction, below
-- the oldest one that is still writing, as changes() does for events. A thread that changes again comes again.
create or replace function leasehold.thread_changes(after text default null, rows_max int default 500)
returns table (cursor text, tenant text, thread text, version bigint, status text, active boolean, title text, summary text,
               last_activity_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  epoch_ int := cursor_epoch();
  part text[] := cursor_parts(coalesce(after, 't' || epoch_ || '-0-0'), 't([0-9]{1,9})-([0-9]{1,19})-([0-9]{1,18})');
begin
  if part[1]::int <> epoch_ then
    raise exception 'the cursor "%" is from before the database was restored', after
      using errcode = 'LH033', hint = 'Read again from the start (NULL): transaction numbers have begun anew.';
  end if;
  return query
  select 't' || epoch_ || '-' || t.xid || '-' || t.version,
         t.tenant, t.thread, t.version, t.status, t.active, t.title, t.summary, t.last_activity_at
    from threads t
   where (t.xid, t.version) > (part[2]::xid8, part[3]::bigint)
     and t.xid < pg_snapshot_xmin(pg_current_snapshot())
   order by t.xid, t.version
   limit page_size(rows_max, 500, 10000);
end $$;
