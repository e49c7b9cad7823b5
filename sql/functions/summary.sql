-- What goes on in a thread, for the agent or the person who is its parent: a few lines of text with a fixed format.
--
-- Everything that others have written is put on one line, cut by characters, and escaped where it stands in quotes: a prompt or a
-- result can neither end its line nor begin a section. What it says is still somebody else's text.

-- '## Running Subagents', then '## Queued Subagents', then the last three that ended; sections without lines are left out, a blank
-- line parts them. Every line ends with a newline. Nothing to show is one sentence without.
create or replace function leasehold.active_summary(thread text, tenant text default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  owner text := tenant_asked(active_summary.tenant);
  name_ text := btrim(active_summary.thread);
  sections text;
begin
  sections := concat_ws(e'\n',
    '## Running Subagents' || e'\n' || summary_of_live(owner, name_, '{running,waiting}'),
    '## Queued Subagents' || e'\n' || summary_of_live(owner, name_, '{queued,deferred}'),
    '## Recent Subagents' || e'\n' || summary_of_ended(owner, name_));
  return coalesce(nullif(sections, ''), 'No active or recent subagents.');
end $$;

-- The oldest twenty, then how many more; NULL for none.
create or replace function leasehold.summary_of_live(tenant text, thread text, statuses text[]) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
begin
  return (
    with live as materialized (
      select j.id, j.agent, j.status, j.prompt, coalesce(j.started_at, case when j.status in ('queued', 'deferred') then j.created_at end) as since
        from unnest(summary_of_live.statuses) wanted (status)
       cross join lateral (select k.*
                             from jobs k
                            where k.tenant = summary_of_live.tenant
                              and k.thread = summary_of_live.thread
                              and k.status = wanted.status
                              and k.finished_at is null
                            order by k.id
                            limit case when wanted.status in ('queued', 'deferred') then 20 end) j      -- of what runs, all
       order by since, j.id
       limit 20
    ), more as (
      select count(*) - 20 as many
        from jobs j
       where j.tenant = summary_of_live.tenant
         and j.thread = summary_of_live.thread
         and j.status = any (summary_of_live.statuses)
         and j.finished_at is null
    )
    select string_agg(format(e'- %s (%s): %s %ss - %s\n', l.id, l.agent, l.status,
                             case when l.since is null then '?' else greatest(round(extract(epoch from clock() - l.since)), 0)::bigint::text end,
                             quoted_line(l.prompt, 50)), '' order by l.since, l.id)
           || case when (select m.many from more m) > 0 then format(e'- and %s more\n', (select m.many from more m)) else '' end
      from live l);
end $$;

-- The three that ended last, newest first; NULL for none.
create or replace function leasehold.summary_of_ended(tenant text, thread text) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
begin
  return (
    select string_agg(format(e'- %s (%s): %s - %s\n', e.id, e.agent, e.status, one_line(ended_words(e), 60)), ''
                      order by e.finished_at desc, e.id desc)
      from (select j.*
              from jobs j
             where j.tenant = summary_of_ended.tenant
               and j.thread = summary_of_ended.thread
               and j.finished_at is not null
             order by j.finished_at desc, j.id desc
             limit 3) e);
end $$;

-- Of a success what it said; of anything else why, and with which message. Never nothing.
create or replace function leasehold.ended_words(job leasehold.jobs) returns text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if job.status = 'succeeded' then
    return coalesce(one_line(job_summary(job.result), 60), one_line(job.message, 60), job.reason);
  end if;
  return coalesce(nullif(concat_ws(': ', nullif(job.reason, job.status), one_line(job.message, 60)), ''), job.reason, 'no reason given');
end $$;
