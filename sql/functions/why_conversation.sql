-- The part of why() about what an agent asks, and about what it was told and has not done yet.

create or replace function leasehold.why_asks(run bigint) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select format('It asks%s since %s: "%s"%s. To answer: SELECT leasehold.answer(%s, %L);',
                case i.kind when 'permission' then coalesce(' whether it may use "' || printable(i.tool, 100) || '",', ' for a permission,') else '' end,
                spell_time(i.asked_at), coalesce(printable(i.prompt, 300), '?'),
                case when i.expires_at is not null then format('; without an answer until %s: %s', spell_time(i.expires_at),
                  case a.on_unanswered when 'cancel' then 'its job is cancelled' when 'ask_again' then 'it is asked again' else 'it is told no' end) end,
                i.id, coalesce(case i.kind when 'permission' then i.options #>> '{0,id}' else i.questions #>> '{0,options,0,label}' end, '...'))
    from (select k.* from interactions k where k.run_id = why_asks.run and k.status = 'pending' offset 0) i
   cross join lateral (select k.agent from runs k where k.id = i.run_id offset 0) r
    left join agents a on a.name = r.agent
   order by i.id
   limit 10;
end $$;

create or replace function leasehold.why_told_turns(job leasehold.jobs) returns setof text
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return query
  select format('Turn %s (%s by "%s") %s%s.', t.id, t.kind, printable(t.actor, 100),
                case when t.state = 'acknowledged' then 'was given to its agent at ' || spell_time(t.acknowledged_at)
                     when t.deliverable and job.status in ('running', 'waiting') then 'is on its way to its agent'
                     when t.deliverable then 'is said to its agent when it runs'
                     else 'waits' end,
                case when t.state = 'pending' then ': ' || printable(t.why, 300) else '' end)
    from turns t
   where t.job_id = job.id
     and t.state in ('pending', 'acknowledged')
   order by t.seq
   limit 10;
  return query
  select format('Job %s follows it, with what its agent had not heard: SELECT * FROM leasehold.why(%s);', t.follow_up_job, t.follow_up_job)
    from turns t
   where t.job_id = job.id
     and t.outcome = 'follow_up'
   group by t.follow_up_job;
end $$;
