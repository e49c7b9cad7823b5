-- What happened, numbered without gaps: whoever writes takes the next numbers from the job's locked head.

-- One event, by a function that has locked the job.
create or replace function leasehold.note(
  job bigint, tenant text, run bigint, kind text, message text default null, data jsonb default null, level text default 'info')
returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  with counted as (
    update heads h
       set seq = h.seq + 1
     where h.job_id = note.job
    returning h.seq
  )
  insert into events (job_id, seq, run_id, tenant, level, kind, message, data)
  select note.job, c.seq, note.run, note.tenant, note.level, note.kind, note.message, note.data
    from counted c;
end $$;

-- Many events of many live runs in one statement. Returns the runs that are refused: ended, or spoken for by another token.
-- The fence is on the locked head itself, so it is checked again after any wait. An event whose mark is not above the head's
-- was written before (the answer got lost) and is skipped. A `delta` is a piece of a message: it takes no number, only its mark.
-- A job that somebody's open transaction holds is not waited for: the worker sends the others' events without it.
create or replace function leasehold.append_events(
  runs bigint[], tokens uuid[], marks bigint[], kinds text[], levels text[], phases text[], messages text[], datas jsonb[])
returns setof bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '250ms'
as $$
begin
  if cardinality(runs) <> any (array[cardinality(tokens), cardinality(marks), cardinality(kinds), cardinality(levels),
                                     cardinality(phases), cardinality(messages), cardinality(datas)]) then
    perform refuse_arguments('the arrays of append_events differ in length');
  end if;
  if kinds && array['question', 'permission', 'withdrawn', 'turn'] then
    perform hold_asking(append_events.runs, tokens, kinds);
  end if;
  return query
  with said as materialized (
    select e.*, r.job_id, r.tenant
      from unnest(append_events.runs, tokens, marks, kinds, levels, phases, messages, datas)
           with ordinality as e (run, token, mark, kind, level, phase, message, data, nth)
      left join lateral (select u.job_id, u.tenant from leasehold.runs u where u.id = e.run offset 0) r on true
  ), speakers as materialized (
    select distinct s.job_id, s.run, s.token
      from said s
     where s.job_id is not null
     order by s.job_id
  ), locked as materialized (
    select head.job_id, head.run_id, head.run_token, head.mark
      from speakers s
     cross join lateral (select h.job_id, h.run_id, h.run_token, h.mark
                           from heads h
                          where h.job_id = s.job_id
                            and h.run_id = s.run
                            and h.run_token = s.token
                            for update) head
  ), fresh as materialized (
    select s.*, row_number() over (partition by s.job_id, s.kind is not distinct from 'delta' order by s.nth) as place,
           case when s.kind in ('usage', 'session', 'question', 'permission') then said_wrong(s.kind, s.data) end as wrong
      from said s
      join locked l
        on l.run_id = s.run
       and l.run_token = s.token
     where s.mark is null
        or s.mark > l.mark
  ), counted as materialized (
    select f.job_id, (count(*) filter (where f.kind is distinct from 'delta'))::int as many, max(f.mark) as mark
      from fresh f
     group by f.job_id
  ), numbered as (
    update heads h
       set seq = h.seq + c.many,
           mark = greatest(h.mark, c.mark)
      from counted c
     where h.job_id = c.job_id
       and h.job_id = any (array(select k.job_id from counted k))                -- on the index, whatever the statistics say
    returning h.job_id, h.seq - c.many as base
  ), written as (
    insert into events (job_id, seq, run_id, tenant, level, phase, kind, message, data)
    select f.job_id, n.base + f.place, f.run, f.tenant,
           case when f.wrong is not null then 'warning' when f.level in ('debug', 'info', 'warning', 'error') then f.level else 'info' end,
           f.phase, coalesce(f.kind, 'message'), coalesce(f.wrong, f.message),
           case when f.kind = 'artifact' and has_content(f.data) then f.data - 'content' else nullif(f.data, 'null') end
      from fresh f
      join numbered n using (job_id)
     where f.kind is distinct from 'delta'
  )
  select distinct s.run
    from said s
   where not exists (select from locked l where l.run_id = s.run and l.run_token = s.token);
  if kinds && array['usage', 'session'] then                       -- the heads are ours until commit
    perform record_said(append_events.runs, tokens, marks, kinds, datas);
  end if;
  if kinds && array['question', 'permission', 'withdrawn', 'turn'] then
    perform record_asked(append_events.runs, tokens, kinds, messages, datas);
  end if;
  if kinds && array['message', 'delta'] then
    perform record_messages(append_events.runs, tokens, marks, kinds, messages, datas);
  end if;
  if 'artifact' = any (kinds) then
    perform record_artifacts(append_events.runs, tokens, marks, kinds, messages, datas);
  end if;
end $$;

-- Where a live run stands, in a word and a sentence.
create or replace function leasehold.report_progress(run bigint, run_token uuid, phase text, message text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  refused bigint;
begin
  select * into refused
    from append_events(array[run], array[run_token], array[null::bigint], array['progress'], array['info'],
                       array[report_progress.phase], array[report_progress.message], array[null::jsonb]);
  if found then
    perform refuse_run(run, run_token);
  end if;
  update runs r
     set phase = report_progress.phase
   where r.id = report_progress.run;
end $$;
