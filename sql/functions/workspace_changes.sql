-- Which files a run has changed, as whoever prepared its workspace found them in the end, and which paths can be meant at all.

-- What is wrong with a path below a workspace; null: nothing.
create or replace function leasehold.workspace_path_mistake(path text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when path is null or btrim(path) = '' then 'it is empty'
    when octet_length(path) > 4096 then 'it is longer than 4096 bytes'
    when left(path, 1) = '/' then 'it is absolute'
    when position('\' in path) > 0 then 'it has a backslash'
    when path ~ '^[A-Za-z]:' then 'it names a drive'
    when '..' = any (string_to_array(path, '/')) then 'it leads upwards'
    when exists (select
                   from unnest(string_to_array(path, '/')) part                -- as file systems that fold names would read it
                  where lower(regexp_replace(part, '[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]', '', 'g')) ~ '^(\.git|git~[0-9]+)[. ]*(:.*)?$')
      then 'it is in the folder of the repository itself'
    when path_parts(path) = '{}' then 'it names nothing in it'
  end;
end $$;

create or replace function leasehold.path_parts(path text) returns text[]
language sql immutable
set search_path = pg_catalog
as $$
  select array(select part from unnest(string_to_array(path, '/')) with ordinality one (part, place) where part not in ('', '.') order by place)
$$;

-- The path as it is stored: relative, inside, without detours. What is none is refused.
create or replace function leasehold.check_workspace_path(path text) returns text
language plpgsql immutable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  mistake text := workspace_path_mistake(path);
begin
  if mistake is not null then
    raise exception '% is no path of a workspace: %', coalesce(quote_literal(left(path, 200)), 'NULL'), mistake
      using errcode = 'LH111', hint = 'Give a path relative to the workspace, with slashes, that stays inside and out of .git.';
  end if;
  return array_to_string(path_parts(path), '/');
end $$;

-- Changes of a live run, an array of objects: path, change_type, and if there are any old_path, added, deleted (lines), diff, source
-- (agent, unless it says otherwise). One row for each source and path: said again it is what it is now. Diffs have room for
-- agents.artifact_limit bytes together, a run for 5000 changes; what is no change is left out; events say both. Answers how many it stored.
create or replace function leasehold.record_changes(worker bigint, token uuid, run bigint, run_token uuid, changes jsonb) returns int
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
declare
  current_ runs := hold_run(record_changes.worker, record_changes.token, record_changes.run, record_changes.run_token);
  room bigint := coalesce((select a.artifact_limit from agents a where a.name = current_.agent), 1048576);
  others record;
  wrong text[];
  given bigint;
  stored int;
begin
  if jsonb_typeof(record_changes.changes) is distinct from 'array' then
    perform refuse_arguments('changes are an array of objects');
  end if;
  select array_agg(c.mistake order by c.nth) filter (where c.mistake is not null),
         count(distinct (c.source, c.path)) filter (where c.mistake is null)
    into wrong, given
    from read_changes(record_changes.changes) c;
  select count(*) as many, coalesce(sum(octet_length(w.diff)), 0) as bytes into others      -- what is said again makes room for itself
    from workspace_changes w
   where w.run_id = current_.id
     and (w.source, w.path) not in (select c.source, c.path from read_changes(record_changes.changes) c where c.mistake is null);
  with sized as (
    select distinct on (c.source, c.path) c.*
      from read_changes(record_changes.changes) c
     where c.mistake is null
     order by c.source, c.path, c.nth desc
  ), placed as (
    select s.*, others.bytes + sum(octet_length(coalesce(s.diff, ''))) over (order by octet_length(coalesce(s.diff, '')), s.nth) <= room as fits
      from sized s
     order by s.nth
     limit greatest(5000 - others.many, 0)
  )
  insert into workspace_changes as w (tenant, job_id, run_id, source, path, change_type, old_path, added, deleted, diff, truncated)
  select current_.tenant, current_.job_id, current_.id, p.source, p.path, p.change_type, p.old_path, p.added, p.deleted,
         case when p.fits then p.diff end, p.diff is not null and not p.fits
    from placed p
      on conflict (run_id, source, md5(path)) do update
     set change_type = excluded.change_type,
         old_path = excluded.old_path,
         added = excluded.added,
         deleted = excluded.deleted,
         diff = excluded.diff,
         truncated = excluded.truncated,
         created_at = clock();
  get diagnostics stored = row_count;
  perform note_changes(current_, wrong, stored, given);
  return stored;
end $$;

-- The array as rows, each with what is wrong with it.
create or replace function leasehold.read_changes(changes jsonb)
returns table (nth bigint, source text, path text, change_type text, old_path text, added int, deleted int, diff text, mistake text)
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  return query
  select e.nth, r.source, array_to_string(path_parts(r.path), '/'), r.change_type,
         case when r.change_type = 'renamed' then array_to_string(path_parts(r.old_path), '/') end,
         case when r.added between 0 and 2000000000 then r.added::int end, case when r.deleted between 0 and 2000000000 then r.deleted::int end, r.diff,
         left(coalesce(r.path, ''), 200) || ': ' || case
           when jsonb_typeof(e.one) <> 'object' then 'it is no object'
           when r.source not in ('user', 'agent', 'command') then 'its source is none'
           when r.change_type is null or r.change_type not in ('added', 'modified', 'deleted', 'renamed') then 'its change_type is none'
           else coalesce(workspace_path_mistake(r.path), case r.change_type when 'renamed' then workspace_path_mistake(r.old_path) end) end
    from jsonb_array_elements(changes) with ordinality e (one, nth)
   cross join lateral (select coalesce(e.one ->> 'source', 'agent'), e.one ->> 'path', e.one ->> 'change_type', e.one ->> 'old_path',
                              case when jsonb_typeof(e.one -> 'added') = 'number' then (e.one ->> 'added')::numeric end,
                              case when jsonb_typeof(e.one -> 'deleted') = 'number' then (e.one ->> 'deleted')::numeric end,
                              e.one ->> 'diff') r (source, path, change_type, old_path, added, deleted, diff);
end $$;

create or replace function leasehold.note_changes(run leasehold.runs, wrong text[], stored int, given bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if cardinality(wrong) > 0 then
    perform note((run).job_id, (run).tenant, (run).id, 'changes_refused', format('%s changes are none: %s', cardinality(wrong), wrong[1]),
                 jsonb_build_object('refused', wrong[1:20]), 'warning');
  end if;
  if stored < given then
    perform note((run).job_id, (run).tenant, (run).id, 'changes_truncated',
                 format('it changed more files than are recorded: %s of %s are left out', given - stored, given), null, 'warning');
  end if;
end $$;
