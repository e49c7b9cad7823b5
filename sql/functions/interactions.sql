-- What agents ask of humans: a row for each question or permission request, open until it is answered (answers.sql), its agent takes it
-- back, its time is over (expiry.sql) or its run ends. While one is open its job is `waiting`.
--
-- Written under the locks of the job and its head, as turns are.

-- Before append_events() takes the heads: these kinds change the job, whose lock comes first.
create or replace function leasehold.hold_asking(runs bigint[], tokens uuid[], kinds text[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform from jobs j
    where j.id = any (array(select r.job_id
                              from unnest(hold_asking.runs, tokens, kinds) e (run, token, kind)
                             cross join lateral (select k.job_id, k.token from leasehold.runs k where k.id = e.run offset 0) r
                             where e.kind = any (array['question', 'permission', 'withdrawn', 'turn'])
                               and r.token = e.token))
    order by j.id
      for update;
end $$;

-- What agents have said about turns and interactions, in a batch of append_events(). Said twice is said once.
create or replace function leasehold.record_asked(runs bigint[], tokens uuid[], kinds text[], messages text[], datas jsonb[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  said record;
begin
  for said in
    select r.run, e.kind, e.message, e.data
      from unnest(record_asked.runs, tokens, kinds, messages, datas) with ordinality e (id, token, kind, message, data, nth)
     cross join lateral (select k as run from leasehold.runs k where k.id = e.id and k.token = e.token offset 0) r
     where e.kind = any (array['question', 'permission', 'withdrawn', 'turn'])
       and jsonb_typeof(e.data) = 'object'
       and is_heard(r.run)
     order by e.nth
  loop
    if said.kind = 'turn' then
      perform record_turn(said.run, said.data);
    elsif said.kind = 'withdrawn' then
      perform withdraw_interaction(said.run, said.data ->> 'id');
    elsif said.data ->> 'decision' is not null then                      -- the agent has decided itself
      continue;
    elsif asked_mistake(said.kind, said.data) is null then
      perform open_interaction(said.run, said.kind, said.message, said.data);
    else
      perform decline_interaction(said.run, said.kind, said.message, said.data);
    end if;
  end loop;
end $$;

-- What is wrong with something an agent asks; null: nothing. Then nobody is asked, and its event says why.
create or replace function leasehold.asked_mistake(kind text, data jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  listed jsonb := case kind when 'question' then data -> 'questions' else coalesce(data -> 'options', '[]') end;
begin
  return case
    when jsonb_typeof(data) is distinct from 'object' then 'it is not an object'
    when data ->> 'decision' is not null then null
    when coalesce(jsonb_typeof(data -> 'id'), 'null') not in ('string', 'number') or btrim(data ->> 'id') = '' then 'it has no id'
    when length(data ->> 'id') > 500 then 'its id is longer than 500 characters'
    when jsonb_typeof(listed) is distinct from 'array' then 'what can be answered is not a list'
    when kind = 'question' and jsonb_array_length(listed) = 0 then 'it asks nothing'
    when exists (select from jsonb_array_elements(listed) l where jsonb_typeof(l) <> 'object' or coalesce(l ->> 'id', '') = '')
      then 'one of what can be answered has no id' end;
end $$;

-- An agent asks. A rule may answer at once; else its job waits, and whoever listens hears of it.
create or replace function leasehold.open_interaction(run leasehold.runs, kind text, message text, data jsonb) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  asked interactions;
  rule answer_policies;
begin
  insert into interactions as i (tenant, job_id, run_id, external_id, kind, prompt, options, questions, tool, input, expires_at)
  values ((run).tenant, (run).job_id, (run).id, data ->> 'id', open_interaction.kind, open_interaction.message,
          case open_interaction.kind when 'permission' then coalesce(data -> 'options', '[]') else '[]' end,
          case open_interaction.kind when 'question' then data -> 'questions' else '[]' end,
          data ->> 'tool', data -> 'input',
          clock() + (select a.answer_timeout from agents a where a.name = (run).agent))
      on conflict (run_id, external_id) do nothing                -- known ones are not opened again, whatever became of them
  returning i.* into asked;
  if not found then
    return;
  end if;
  perform note(asked.job_id, asked.tenant, asked.run_id, 'interaction_opened', left(asked.prompt, 1000),
               jsonb_strip_nulls(jsonb_build_object('interaction', asked.id, 'asks_for', asked.kind, 'tool', asked.tool, 'expires_at', asked.expires_at)));
  rule := policy_for((run).agent, asked.kind, asked.tool);
  if rule.id is not null then
    perform give_answer(asked, 'answered', decided(asked, rule.decision, rule.message), 'policy');
  else
    perform wait_for_human(run);
    perform pg_notify('leasehold_interactions', '');
  end if;
end $$;

-- What nobody could answer is denied at once, if its agent can be told so: it would wait for ever.
create or replace function leasehold.decline_interaction(run leasehold.runs, kind text, message text, data jsonb) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  asked interactions;
begin
  if coalesce(jsonb_typeof(data -> 'id'), 'null') not in ('string', 'number') or length(data ->> 'id') not between 1 and 500 then
    return;
  end if;
  insert into interactions as i (tenant, job_id, run_id, external_id, kind, prompt)
  values ((run).tenant, (run).job_id, (run).id, data ->> 'id', decline_interaction.kind, decline_interaction.message)
      on conflict (run_id, external_id) do nothing
  returning i.* into asked;
  if found then
    perform give_answer(asked, 'answered', decided(asked, 'deny', asked_mistake(decline_interaction.kind, data)), 'leasehold');
  end if;
end $$;

-- The job of this run waits. One that is being cancelled, or waits already, stays as it is.
create or replace function leasehold.wait_for_human(run leasehold.runs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job jobs;
begin
  perform set_config('leasehold.actor', 'ask', true);
  update jobs j
     set status = 'waiting',
         updated_at = clock()
   where j.id = (run).job_id
     and j.status = 'running'
     and j.cancel_requested_at is null
  returning j.* into job;
  perform set_config('leasehold.actor', '', true);
  if job.id is null or (select a.while_waiting from agents a where a.name = job.agent) is distinct from 'release' then
    return;
  end if;
  update runs r set released = true where r.id = (run).id;
  insert into arrivals (tenant, queue, agent, repository) values (job.tenant, job.queue, job.agent, job.repository);      -- a note of room
  if is_limited(job) then
    perform ring();
  end if;
end $$;

-- One of its interactions is over: with the last one the job runs again, and its place is taken again, whatever the limits say.
create or replace function leasehold.wait_no_more(job bigint, run bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if exists (select from interactions i where i.run_id = wait_no_more.run and i.status = 'pending') then
    return;
  end if;
  perform set_config('leasehold.actor', 'answer', true);
  update jobs j
     set status = 'running',
         updated_at = clock()
   where j.id = wait_no_more.job
     and j.status = 'waiting';
  perform set_config('leasehold.actor', '', true);
  update runs r set released = false where r.id = wait_no_more.run and r.released;
end $$;

-- Its agent does not wait for it any more.
create or replace function leasehold.withdraw_interaction(run leasehold.runs, external_id text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  gone interactions;
begin
  update interactions i
     set status = 'withdrawn',
         closed_at = clock()
   where i.run_id = (run).id
     and i.external_id = withdraw_interaction.external_id
     and i.status = 'pending'
  returning i.* into gone;
  if found then
    perform note(gone.job_id, gone.tenant, gone.run_id, 'interaction_withdrawn', 'its agent does not wait for it any more',
                 jsonb_build_object('interaction', gone.id));
    perform wait_no_more(gone.job_id, gone.run_id);
  end if;
end $$;

-- A run has ended: nobody waits for what it asked, and an answer that had not reached it does not. What was secret is forgotten.
create or replace function leasehold.close_interactions(run leasehold.runs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  open_ interactions;
begin
  for open_ in
    select i.* from (select k.* from interactions k where k.run_id = (run).id offset 0) i order by i.id      -- by the run, not by the key
  loop
    if open_.status = 'pending' or open_.to_deliver then
      update interactions i
         set status = case i.status when 'pending' then 'closed' else i.status end,
             closed_at = coalesce(i.closed_at, clock()),
             to_deliver = false
       where i.id = open_.id;
      perform note(open_.job_id, open_.tenant, open_.run_id, 'interaction_closed',
                   case open_.status when 'pending' then 'its run has ended' else 'its run ended before the answer reached it' end,
                   jsonb_build_object('interaction', open_.id), 'warning');
    end if;
    if jsonb_path_exists(open_.questions, '$[*] ? (@.secret == true)') then
      update interactions i
         set response = i.response || jsonb_build_object('answers', (
               select jsonb_object_agg(a.key, case when exists (select from jsonb_array_elements(open_.questions) q
                                                                  where q ->> 'id' = a.key and q -> 'secret' = 'true')
                                                then '["***"]'::jsonb else a.value end)
                 from jsonb_each(i.response -> 'answers') a))
       where i.id = open_.id
         and jsonb_typeof(i.response -> 'answers') = 'object';
    end if;
  end loop;
end $$;
