-- Times, durations, sizes and other people's bytes, as a sentence can carry them. Used by why().

-- "2.5 s", "3 min 20 s", "2 h 5 min", "4 d 1 h": the two largest units that say anything.
create or replace function leasehold.spell(span interval) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  seconds numeric := abs(extract(epoch from span));
  whole bigint := trunc(seconds);
  unit bigint := case when whole < 3600 then 60 when whole < 86400 then 3600 else 86400 end;
  rest bigint := whole % unit / case unit when 60 then 1 when 3600 then 60 else 3600 end;
begin
  if seconds < 60 then
    return trim_scale(trunc(seconds, case when seconds < 10 then 1 else 0 end)) || ' s';
  end if;
  return whole / unit || case unit when 60 then ' min' when 3600 then ' h' else ' d' end
         || case when rest > 0 then ' ' || rest || case unit when 60 then ' s' when 3600 then ' min' else ' h' end else '' end;
end $$;

-- "2030-01-01 12:00:00 UTC (3 min ago)", in the session's time zone.
create or replace function leasehold.spell_time(at timestamptz) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  gap interval := clock() - at;
begin
  return to_char(at, 'YYYY-MM-DD HH24:MI:SS TZ') || case
    when abs(extract(epoch from gap)) < 0.1 then ' (just now)'
    when gap < interval '0' then format(' (in %s)', spell(gap))
    else format(' (%s ago)', spell(gap)) end;
end $$;

create or replace function leasehold.spell_bytes(size numeric) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when size < 1024 then size || ' bytes'
    when size < 1048576 then round(size / 1024, 1) || ' KiB'
    when size < 1073741824 then round(size / 1048576, 1) || ' MiB'
    else round(size / 1073741824, 1) || ' GiB' end;
end $$;

-- "1 job", "3 jobs", "2 processes".
create or replace function leasehold.count_of(many bigint, one text, more text default null) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return many || ' ' || case many when 1 then one else coalesce(more, one || 's') end;
end $$;

-- "SIGKILL" for 9.
create or replace function leasehold.signal_name(number int) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce('SIG' || case number
    when 1 then 'HUP' when 2 then 'INT' when 3 then 'QUIT' when 4 then 'ILL' when 5 then 'TRAP' when 6 then 'ABRT' when 7 then 'BUS'
    when 8 then 'FPE' when 9 then 'KILL' when 10 then 'USR1' when 11 then 'SEGV' when 12 then 'USR2' when 13 then 'PIPE'
    when 14 then 'ALRM' when 15 then 'TERM' when 24 then 'XCPU' when 25 then 'XFSZ' when 31 then 'SYS' end, 'signal ' || number);
end $$;

-- Somebody else's text on one line of ours: no control character reaches the reader's terminal.
create or replace function leasehold.printable(said text, longest int default 300) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  clean text := regexp_replace(rtrim(said, e'\r\n'), '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]',
                               U&'\FFFD', 'g');
begin
  clean := replace(clean, e'\n', ' ');
  return case when length(clean) <= longest then clean else left(clean, longest) || U&'\2026' end;
end $$;

-- Bytes as text: UTF-8 if they are, else with octal escapes.
create or replace function leasehold.printable(said bytea) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return printable(convert_from(said, 'UTF8'));
exception when character_not_in_repertoire or untranslatable_character then
  return printable(encode(said, 'escape'));
end $$;

-- "clock idle, cpu_seconds 0.1": a small JSON object in words.
create or replace function leasehold.spell_facts(facts jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if jsonb_typeof(facts) is distinct from 'object' then
    return facts #>> '{}';
  end if;
  return (select string_agg(replace(one.key, '_', ' ') || ' ' || (one.value #>> '{}'), ', ' order by one.key)
            from jsonb_each(facts) one
           where one.value <> 'null');
end $$;

-- The beginning of somebody else's text, on one line, blanks collapsed: NULL if nothing is left. Cut by characters, without a mark.
create or replace function leasehold.one_line(said text, longest int) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  start_ text := left(ltrim(said, e' \t\r\n\f\v'), longest * 10 + 1000);        -- of a prompt of 1 MiB, not all of it
begin
  return nullif(btrim(left(regexp_replace(printable(regexp_replace(start_, '\s+', ' ', 'g'), 100000), '\s+', ' ', 'g'), longest)), '');
end $$;

-- The same within quotes: a quote inside does not end it. Cut before it is escaped.
create or replace function leasehold.quoted_line(said text, longest int) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return '"' || replace(replace(coalesce(one_line(said, longest), ''), '\', '\\'), '"', '\"') || '"';
end $$;
