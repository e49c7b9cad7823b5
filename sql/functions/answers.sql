-- Answering what an agent asks: once, by a human who says what is among the options, or by a rule that an administrator wrote.

-- An option's id or name, or plainly `allow` or `deny`; to a question, one of its options or, where it takes that, free words. To
-- several questions, or with several options: `answers`, {"<question id>": "one" | ["some", "more"]}; {} declines to answer.
create or replace function leasehold.answer(interaction bigint, answer text default null, message text default null, answers jsonb default null)
returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job jobs;
  asked interactions;
  said jsonb;
begin
  select j.* into job
    from jobs j
   where j.id = (select i.job_id from interactions i where i.id = answer.interaction)
     for update;
  if not found or not may_act_for(job.tenant) then
    raise exception 'there is no interaction %', coalesce(answer.interaction::text, 'NULL')
      using errcode = 'LH105', hint = 'SELECT id, prompt, options, questions FROM leasehold.interactions WHERE status = ''pending'' lists those you may answer.';
  end if;
  perform from heads h where h.job_id = job.id for update;
  select i.* into strict asked from interactions i where i.id = answer.interaction;
  if asked.status in ('closed', 'withdrawn') then
    perform refuse_over(asked);
  end if;
  said := read_answer(asked, answer.answer, answer.message, answer.answers);
  if asked.status = 'pending' then
    perform give_answer(asked, 'answered', said, session_user::text);
  elsif asked.status = 'expired' or (asked.response, asked.answered_by) is distinct from (said, session_user::text) then
    perform refuse_over(asked);
  end if;
  return 'answered';
end $$;

create or replace function leasehold.refuse_over(asked leasehold.interactions) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if asked.status = 'answered' then
    raise exception 'interaction % was answered by % at %', asked.id, asked.answered_by, spell_time(asked.answered_at)
      using errcode = 'LH106', detail = format('answered_by=%s', asked.answered_by),
            hint = format('Its agent goes on with that. SELECT leasehold.steer(%s, ''...''); tells it something else.', asked.job_id);
  end if;
  raise exception 'interaction % is over: %', asked.id,
                  case asked.status when 'expired' then 'nobody answered in time' when 'withdrawn' then 'its agent does not wait for it any more'
                                    else 'its run has ended' end
    using errcode = 'LH107', hint = 'If the agent still wants to know, it asks again, and that is another interaction.';
end $$;

-- Take an answer for an interaction whose job and head the caller has locked: its worker carries it to the agent.
create or replace function leasehold.give_answer(asked leasehold.interactions, status text, response jsonb, by_ text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update interactions i
     set status = give_answer.status,
         response = give_answer.response,
         answered_by = by_,
         answered_at = clock(),
         closed_at = clock(),
         to_deliver = true
   where i.id = asked.id;
  perform note(asked.job_id, asked.tenant, asked.run_id, 'interaction_' || give_answer.status, null,
               jsonb_strip_nulls(jsonb_build_object('interaction', asked.id, 'by', by_, 'decision', give_answer.response -> 'decision',
                                                    'option', give_answer.response -> 'option')));
  perform wait_no_more(asked.job_id, asked.run_id);
  perform ring_worker_of(asked.job_id);
end $$;

create or replace function leasehold.refuse_answer(asked leasehold.interactions, mistake text, choices text default null) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'interaction %: %', asked.id, mistake
    using errcode = 'LH108', detail = coalesce(choices, ''),
          hint = coalesce('It can be: ' || choices || '.', 'SELECT prompt, options, questions FROM leasehold.interactions WHERE id = ' || asked.id || ';');
end $$;

-- What was said, as the agent is to hear it. Refused unless it is an answer to what was asked.
create or replace function leasehold.read_answer(asked leasehold.interactions, answer text, message text, answers jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  word text := nullif(btrim(answer, e' \t\r\n'), '');
  words text := nullif(btrim(message, e' \t\r\n'), '');
begin
  if octet_length(word) > 65536 or octet_length(words) > 65536 or pg_column_size(answers) > 65536 then
    perform refuse_answer(asked, 'the answer is longer than 65536 bytes');
  elsif asked.kind = 'permission' then
    return read_permission(asked, word, words, answers);
  elsif (word is null) = (answers is null) then
    perform refuse_answer(asked, 'say either one answer, or answers to its questions by their ids');
  elsif word is not null and jsonb_array_length(asked.questions) > 1 then
    perform refuse_answer(asked, 'it asks several questions: give answers => {"<question id>": ...}', question_ids(asked));
  elsif word is not null then
    answers := jsonb_build_object(asked.questions #>> '{0,id}', word);
  elsif jsonb_typeof(answers) <> 'object' then
    perform refuse_answer(asked, 'answers must be a JSON object: {"<question id>": ...}', question_ids(asked));
  elsif answers = '{}' then
    return jsonb_strip_nulls(jsonb_build_object('decision', 'deny', 'message', words));
  end if;
  return jsonb_strip_nulls(jsonb_build_object('decision', 'allow', 'message', words)) || jsonb_build_object('answers', read_answers(asked, answers));
end $$;

create or replace function leasehold.question_ids(asked leasehold.interactions) returns text
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select string_agg(q.value ->> 'id', ', ' order by q.nth) from jsonb_array_elements(asked.questions) with ordinality q (value, nth)
$$;

create or replace function leasehold.read_permission(asked leasehold.interactions, word text, words text, answers jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  chosen jsonb := (select o from jsonb_array_elements(asked.options) with ordinality l (o, nth)
                    where o ->> 'id' = word or lower(o ->> 'name') = lower(word)
                    order by o ->> 'id' = word desc, nth limit 1);
  plain text := case when lower(word) in ('allow', 'approve', 'approved', 'yes') then 'allow'
                     when lower(word) in ('deny', 'reject', 'rejected', 'no') then 'deny' end;
begin
  if word is null or answers is not null then
    perform refuse_answer(asked, 'it asks for a permission: say one of its options', option_words(asked));
  elsif chosen is null and plain is null then
    perform refuse_answer(asked, format('"%s" is not one of its options', left(word, 100)), option_words(asked));
  elsif chosen is null then
    return decided(asked, plain, words);
  end if;
  return jsonb_strip_nulls(jsonb_build_object('decision', case when chosen ->> 'kind' like 'reject%' then 'deny' else 'allow' end,
                                              'option', chosen -> 'id', 'message', words));
end $$;

create or replace function leasehold.option_words(asked leasehold.interactions) returns text
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select concat_ws(', ', string_agg(o.value ->> 'id', ', ' order by o.nth), 'allow', 'deny')
    from jsonb_array_elements(asked.options) with ordinality o (value, nth)
   where o.value ->> 'id' not in ('allow', 'deny')
$$;

-- A plain yes or no, with the option that says so for this once rather than for always, if there is one.
create or replace function leasehold.decided(asked leasehold.interactions, decision text, message text) returns jsonb
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object('decision', decision, 'message', message, 'option', (
    select o.value -> 'id'
      from jsonb_array_elements(asked.options) with ordinality o (value, nth)
     where o.value ->> 'kind' like case decision when 'allow' then 'allow%' else 'reject%' end
     order by o.value ->> 'kind' like '%once' desc, o.nth
     limit 1)))
$$;

-- {"<question id>": ["label or words", ...]}, every question answered, every label as the agent wrote it.
create or replace function leasehold.read_answers(asked leasehold.interactions, answers jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  question jsonb;
  given jsonb;
  read_ jsonb := '{}';
  unknown text := (select string_agg(k, ', ' order by k) from jsonb_object_keys(answers) k
                    where not exists (select from jsonb_array_elements(asked.questions) q where q ->> 'id' = k));
begin
  if unknown is not null then
    perform refuse_answer(asked, format('it asks no question "%s"', left(unknown, 200)), question_ids(asked));
  end if;
  for question in select q from jsonb_array_elements(asked.questions) with ordinality l (q, nth) order by nth loop
    given := answers -> (question ->> 'id');
    given := case jsonb_typeof(given) when 'array' then given when 'string' then jsonb_build_array(given) end;
    if given is null or jsonb_array_length(given) = 0 then
      perform refuse_answer(asked, format('question "%s" is not answered with a text or a list of texts', question ->> 'id'), choices_of(question));
    elsif jsonb_array_length(given) > 1 and not coalesce((question ->> 'multiple')::boolean, false) then
      perform refuse_answer(asked, format('question "%s" takes one answer, not %s', question ->> 'id', jsonb_array_length(given)), choices_of(question));
    end if;
    read_ := read_ || jsonb_build_object(question ->> 'id', (
      select jsonb_agg(to_jsonb(read_choice(asked, question, g.value)) order by g.nth) from jsonb_array_elements(given) with ordinality g (value, nth)));
  end loop;
  return read_;
end $$;

create or replace function leasehold.choices_of(question jsonb) returns text
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select string_agg(o.value ->> 'label', ', ' order by o.nth)
    from jsonb_array_elements(case jsonb_typeof(question -> 'options') when 'array' then question -> 'options' else '[]' end)
         with ordinality o (value, nth)
$$;

create or replace function leasehold.read_choice(asked leasehold.interactions, question jsonb, given jsonb) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  word text := case jsonb_typeof(given) when 'string' then nullif(btrim(given #>> '{}', e' \t\r\n'), '') end;
  choices text := choices_of(question);
  known text := (select o ->> 'label'
                   from jsonb_array_elements(case when choices is null then '[]' else question -> 'options' end) o
                  where lower(o ->> 'label') = lower(word)
                  order by o ->> 'label' = word desc
                  limit 1);
begin
  if word is null or (known is null and choices is not null and not coalesce((question ->> 'free_text')::boolean, false)) then
    perform refuse_answer(asked, format('%s is no answer to question "%s"', coalesce('"' || left(word, 100) || '"', 'a blank'), question ->> 'id'), choices);
  end if;
  return coalesce(known, word);
end $$;

-- The rule that answers this, the most exact first: of this agent, then with the longer pattern. None: a human is asked.
create or replace function leasehold.policy_for(agent text, kind text, tool text) returns leasehold.answer_policies
language sql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
  select p.*
    from answer_policies p
   where (p.agent is null or p.agent = policy_for.agent)
     and p.kind = policy_for.kind
     and (p.tool is null or coalesce(policy_for.tool, '') like p.tool)
   order by p.agent is null, p.tool is null, length(replace(p.tool, '%', '')) desc, p.decision = 'deny' desc, p.id
   limit 1
$$;
