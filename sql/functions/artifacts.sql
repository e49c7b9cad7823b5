-- Named results: diffs, plans, reports. From `artifact` events of agents, through append_events(), and from workers by add_artifact().
-- How an agent's last words come to be in three places already (jobs.result, its last message, the thread's summary) nothing is made
-- into an artifact by itself.

-- Store one; what is longer than agents.artifact_limit is cut, and an event says so. Answers its id; null: it was there.
create or replace function leasehold.put_artifact(
  run leasehold.runs, key text, kind text, title text, content text, content_type text) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
  most bigint := coalesce((select a.artifact_limit from agents a where a.name = (run).agent), 1048576);
  there record;
  added bigint;
begin
  select count(*) as many, coalesce(sum(octet_length(a.content)), 0) as bytes into there from artifacts a where a.run_id = (run).id;
  most := case when there.many < 1000 then greatest(least(most, 16 * most - there.bytes), 0) end;      -- null: no more of them
  insert into artifacts (tenant, job_id, run_id, key, kind, title, content, content_type, bytes, sha256, truncated)
  select (run).tenant, (run).job_id, (run).id, put_artifact.key, put_artifact.kind, title_of_artifact(title, put_artifact.kind),
         cut_text(put_artifact.content, most), put_artifact.content_type, octet_length(put_artifact.content),
         encode(sha256(convert_to(put_artifact.content, 'UTF8')), 'hex'), octet_length(put_artifact.content) > most
   where most is not null
      on conflict (run_id, key) do nothing
  returning id into added;
  if most is null and there.many = 1000
     and not exists (select from events e where e.job_id = (run).job_id and e.run_id = (run).id and e.kind = 'artifacts_dropped') then
    perform note((run).job_id, (run).tenant, (run).id, 'artifacts_dropped', 'it has made 1000 artifacts: those behind are dropped',
                 null, 'warning');
  elsif added is not null and octet_length(put_artifact.content) > most then
    perform note((run).job_id, (run).tenant, (run).id, 'artifact_truncated',
                 format('%s has %s bytes: only its first %s are kept', quote_literal(left(title, 100)), octet_length(put_artifact.content), most),
                 jsonb_build_object('artifact', added, 'bytes', octet_length(put_artifact.content), 'kept', most), 'warning');
  end if;
  return added;
end $$;

create or replace function leasehold.title_of_artifact(title text, kind text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce(nullif(left(btrim(title, e' \t\r\n'), 500), ''), kind);
end $$;

-- What agents made, of a batch of events. A kind or type that is none of the list is `other` and `text/plain`. Without content it is
-- an event and nothing more.
create or replace function leasehold.record_artifacts(
  runs bigint[], tokens uuid[], marks bigint[], kinds text[], messages text[], datas jsonb[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
declare
  made record;
begin
  for made in
    select r::leasehold.runs as run, e.mark, e.nth, e.data, coalesce(e.data ->> 'title', e.data ->> 'name', e.message) as title,
           lower(btrim(e.data ->> 'kind')) as kind, lower(btrim(split_part(e.data ->> 'content_type', ';', 1))) as type
      from unnest(record_artifacts.runs, tokens, marks, kinds, messages, datas)
           with ordinality e (run, token, mark, kind, message, data, nth)
     cross join lateral (select u.* from leasehold.runs u where u.id = e.run and u.token = e.token offset 0) r
     cross join lateral (select h.job_id
                           from heads h
                          where h.job_id = r.job_id and h.run_id = e.run and h.run_token = e.token
                         offset 0) live
     where e.kind = 'artifact'
       and has_content(e.data)
     order by r.job_id, e.nth
  loop
    perform put_artifact(made.run, '@' || coalesce(made.mark::text, 'x' || txid_current() || '.' || made.nth),
                         case when made.kind in ('plan', 'diff', 'test_output', 'summary', 'error', 'pr_body', 'report') then made.kind else 'other' end,
                         made.title, made.data ->> 'content',
                         case when made.type in ('text/markdown', 'text/plain', 'application/json', 'text/x-diff') then made.type
                              when jsonb_typeof(made.data -> 'content') in ('object', 'array') then 'application/json'
                              when made.kind = 'diff' then 'text/x-diff'
                              else 'text/plain' end);
  end loop;
end $$;

-- Has this artifact something that belongs into its row instead of its event?
create or replace function leasehold.has_content(data jsonb) returns boolean
language sql immutable
set search_path = pg_catalog
as $$
  select jsonb_typeof(data) = 'object' and coalesce(data -> 'content', 'null') <> 'null'
$$;

-- A worker adds one for a live run of its own. `key` is its name within the run: said again, the first one stands. Answers its id.
create or replace function leasehold.add_artifact(
  worker bigint, token uuid, run bigint, run_token uuid, kind text, title text, content text, content_type text default 'text/plain',
  key text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(add_artifact.worker, add_artifact.token, add_artifact.run, add_artifact.run_token);
  name_ text := coalesce(nullif(add_artifact.key, ''), gen_random_uuid()::text);
  added bigint;
begin
  if add_artifact.kind not in ('plan', 'diff', 'test_output', 'summary', 'error', 'pr_body', 'report', 'other') then
    raise exception 'there is no kind of artifact %', quote_literal(left(add_artifact.kind, 100))
      using errcode = 'LH110', hint = 'Use one of: plan, diff, test_output, summary, error, pr_body, report, other.';
  elsif add_artifact.content_type not in ('text/markdown', 'text/plain', 'application/json', 'text/x-diff') then
    raise exception 'an artifact cannot be %', quote_literal(left(add_artifact.content_type, 100))
      using errcode = 'LH110', hint = 'Its content_type is one of: text/markdown, text/plain, application/json, text/x-diff.';
  elsif add_artifact.kind is null or add_artifact.content_type is null or add_artifact.content is null then
    perform refuse_arguments('an artifact needs a kind, a content and a content_type');
  end if;
  added := put_artifact(current_, name_, add_artifact.kind, add_artifact.title, add_artifact.content, add_artifact.content_type);
  if added is not null then
    perform note(current_.job_id, current_.tenant, current_.id, 'artifact', title_of_artifact(title, add_artifact.kind),
                 jsonb_build_object('artifact', added, 'kind', add_artifact.kind, 'content_type', add_artifact.content_type,
                                    'bytes', octet_length(add_artifact.content)));
  end if;
  return coalesce(added, (select a.id from artifacts a where a.run_id = current_.id and a.key = name_));
end $$;
