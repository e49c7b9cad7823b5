-- Coalescing: several asks become one job, and none of them is lost.
--
-- An ask joins a job that has not started, on its locked row. It never waits for that row: if somebody holds it, the ask becomes a
-- job of its own behind the key, and the claim that starts the next job of the key brings together what was kept apart.

-- Join a job of this agent and key that has not started. Null: there is none to be had.
create or replace function leasehold.join_waiting(wanted leasehold.jobs, wakeup bigint) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
declare
  live bigint := live_of(wanted.tenant, wanted.concurrency_key);
  target jobs;
begin
  select j.* into target
    from jobs j
   where j.id = live
     and j.status = 'queued'
     and j.agent = wanted.agent
     for update skip locked;
  if not found then
    select j.* into target
      from jobs j
     where j.tenant = wanted.tenant
       and j.concurrency_key = wanted.concurrency_key
       and j.status = 'deferred'
       and j.agent = wanted.agent
     order by j.priority desc, j.run_at, j.id
     limit 1
       for update skip locked;
  end if;
  if not found or not can_merge(target, wanted) then
    return null;
  end if;
  perform merge_into(target, wanted, 1, jsonb_build_object('wakeup', wakeup, 'by', session_user));
  return target.id;
end $$;

-- Tell it to the agent that is at work on this key, if that takes such a thing in the middle of its work. A comment is a job of its own:
-- what it was written about may be done by the time it is read. Null: there is no such agent, somebody holds its job, or too much waits
-- for it already.
create or replace function leasehold.join_running(wanted leasehold.jobs, wakeup bigint) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  words text := told_words(wanted, wakeup);
  target jobs;
  told bigint;
begin
  if words is null or wanted.run_at > clock() or not takes(wanted.agent, 'steer') then
    return null;
  end if;
  select j.* into target
    from jobs j
   where j.id = live_of(wanted.tenant, wanted.concurrency_key)
     and j.status in ('running', 'waiting')
     and j.agent = wanted.agent
     and j.cancel_requested_at is null
     for update skip locked;
  if not found or not can_merge(target, wanted) or is_too_much(target.id, octet_length(words)) then
    return null;
  end if;
  told := add_turn(target, 'steer', words, null, sha256(convert_to(words, 'UTF8')), session_user::text);
  update jobs j
     set coalesced = j.coalesced + 1,
         context = merged_context(j.context, wanted.context),
         updated_at = clock()
   where j.id = target.id;
  update wakeups w set turn_id = told where w.id = wakeup;
  return target.id;
end $$;

-- An ask as words for an agent at work. Null: it is too long for that, or a comment.
create or replace function leasehold.told_words(wanted leasehold.jobs, wakeup bigint) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  words text := concat_ws(e'\n\n',
    nullif(btrim(wanted.prompt), bare_prompt()),
    'You are woken again while you work on this: ' || (select w.reason from wakeups w where w.id = told_words.wakeup),
    case when wanted.context <> '{}' then 'Its context: ' || wanted.context::text end);
begin
  if coalesce(said(wanted.context, 'wakeCommentId'), said(wanted.context, 'commentId')) is not null
     or words = '' or octet_length(words) > 262144 then
    return null;
  end if;
  return words;
end $$;

-- What a merged job would say to its agent.
create or replace function leasehold.merged_context(had jsonb, more jsonb) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  comment text := coalesce(said(more, 'wakeCommentId'), said(more, 'commentId'));
begin
  return had || more || case when comment is null then '{}'
                             else jsonb_build_object('commentId', comment, 'wakeCommentId', comment) end;
end $$;

-- A prompt that is there already is not said twice; the one of a bare wake() says nothing of its own.
create or replace function leasehold.merged_prompt(had text, more text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when more is null or more = bare_prompt() or strpos(e'\n\n' || had || e'\n\n', e'\n\n' || more || e'\n\n') > 0 then had
    when had = bare_prompt() then more
    else had || e'\n\n' || more
  end;
end $$;

create or replace function leasehold.can_merge(target leasehold.jobs, ask leasehold.jobs) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return octet_length(merged_prompt(target.prompt, ask.prompt)) <= 1048576
     and pg_column_size(merged_context(target.context, ask.context)) <= 1048576;
end $$;

-- The asks are done together: with the highest of their priorities, at the earliest of their times. A backoff is kept.
create or replace function leasehold.merge_into(target leasehold.jobs, ask leasehold.jobs, asks int, facts jsonb) returns leasehold.jobs
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  earlier timestamptz := case when target.attempts + target.interruptions = 0
    then nullif(least(target.run_at, coalesce(ask.run_at, clock())), target.run_at) end;
  merged jobs;
begin
  update jobs j
     set context = merged_context(j.context, ask.context),
         prompt = merged_prompt(j.prompt, ask.prompt),
         priority = greatest(j.priority, ask.priority),
         run_at = coalesce(earlier, j.run_at),
         due = case when earlier is null then j.due else earlier <= clock() end,
         waits_until = case when earlier is null then j.waits_until
           else greatest(earlier, clock()) + (select a.queue_timeout from agents a where a.name = j.agent) end,
         coalesced = j.coalesced + asks,
         updated_at = clock()
   where j.id = target.id
  returning j.* into merged;
  perform note(target.id, target.tenant, null, 'coalesced', null, facts || jsonb_build_object('asks', merged.coalesced));
  if merged.due and not target.due and merged.status = 'queued' then
    insert into arrivals (lane, queue, tenant, agent, repository)
    values (merged.lane, merged.queue, merged.tenant, merged.agent, merged.repository);
  end if;
  return merged;
end $$;

-- Take over what waits behind the same key to be coalesced by the same agent. The caller has locked the target, which has not started.
create or replace function leasehold.absorb(target leasehold.jobs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
declare
  other jobs;
  done_by text := format('job %s does what it was asked', target.id);
begin
  for other in
    select d.*
      from jobs d
     where d.tenant = target.tenant
       and d.concurrency_key = target.concurrency_key
       and d.agent = target.agent
       and d.status = 'deferred'
       and d.conflict_policy = 'coalesce'
       and d.started_at is null                                -- what was retried by hand keeps its own id
       and d.id <> target.id
     order by d.run_at, d.id
     limit 200                                                 -- the claim is waiting; the rest is one more run
       for update skip locked
  loop
    continue when not can_merge(target, other) or is_too_much(target.id, open_bytes(other.id));
    target := merge_into(target, other, other.coalesced + 1, jsonb_build_object('job', other.id));
    perform move_turns(other.id, target);
    perform set_config('leasehold.actor', 'coalesce', true);
    update jobs j
       set status = 'cancelled',
           reason = 'coalesced',
           message = done_by,
           finished_at = clock(),
           updated_at = clock()
     where j.id = other.id;
    perform set_config('leasehold.actor', '', true);
    perform note(other.id, other.tenant, null, 'cancelled', done_by, jsonb_build_object('reason', 'coalesced', 'job', target.id));
    update wakeups w
       set job_id = target.id,
           disposition = case w.disposition when 'existing' then w.disposition else 'coalesced' end,
           why = done_by,
           decided_at = coalesce(w.decided_at, clock())
     where w.job_id = other.id
       and w.disposition <> 'rejected';
  end loop;
end $$;

-- Just before these jobs start, which the claim has locked: from then on nothing can join them.
create or replace function leasehold.absorb_last(jobs bigint[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
declare
  target jobs;
begin
  for target in
    select j.*
      from unnest(absorb_last.jobs) wanted (id)                         -- lateral with offset 0 is always an index probe
     cross join lateral (select k.* from leasehold.jobs k where k.id = wanted.id offset 0) j
     where j.concurrency_key is not null
       and j.conflict_policy <> 'allow'
  loop
    perform absorb(target);
  end loop;
end $$;

-- A new one waits behind a taken key: what waits there to be coalesced becomes one job for each agent, or joins the live one if that
-- has not started. What is locked at this moment is left to absorb_last().
create or replace function leasehold.gather(tenant text, key text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_sort = off
set jit = off
as $$
declare
  live bigint := live_of(gather.tenant, gather.key);
  one record;
  target jobs;
begin
  for one in
    select d.agent, lag(d.agent) over (order by d.agent, d.run_at, d.id) as before
      from jobs d
     where d.tenant = gather.tenant
       and d.concurrency_key = gather.key
       and d.status = 'deferred'
       and d.conflict_policy = 'coalesce'
     order by d.agent, d.run_at, d.id
  loop
    continue when one.agent = one.before;
    select j.* into target
      from jobs j
     where j.id = live
       and j.status = 'queued'
       and j.agent = one.agent
       for update skip locked;
    if not found then
      select d.* into target
        from jobs d
       where d.tenant = gather.tenant
         and d.concurrency_key = gather.key
         and d.agent = one.agent
         and d.status = 'deferred'
         and d.conflict_policy = 'coalesce'
       order by d.run_at, d.id
       limit 1
         for update skip locked;
    end if;
    if found then
      perform absorb(target);
    end if;
  end loop;
end $$;
