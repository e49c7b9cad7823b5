-- Writing an agent: whoever may do it may run programs, so only leasehold_admin may. Normalised, checked, with messages of our own.

create or replace function leasehold.agents_before_write() returns trigger
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  if tg_op = 'UPDATE' and new.name is distinct from old.name then
    raise exception 'agent "%" cannot be renamed', old.name
      using errcode = 'LH047', hint = 'Its jobs and runs name it. Insert a new agent and pause this one.';
  end if;
  new.name := lower(btrim(new.name));
  new.adapter := coalesce(lower(btrim(new.adapter)), 'command');
  new.env := coalesce(new.env, '{}');
  new.limits := coalesce(new.limits, '{}');
  new.launcher := coalesce(new.launcher, '{}');
  new.status := coalesce(new.status, 'enabled');
  new.wake_on_schedule := coalesce(new.wake_on_schedule, true);
  new.wake_on_demand := coalesce(new.wake_on_demand, true);
  new.account := nullif(btrim(new.account), '');
  new.private_config := coalesce(new.private_config, false);
  new.config_files := coalesce(new.config_files, '{}');
  new.credential := nullif(btrim(new.credential), '');
  new.credential_name := nullif(btrim(new.credential_name), '');
  new.credential_lock := coalesce(new.credential_lock, 'run');
  new.on_unanswered := coalesce(lower(btrim(new.on_unanswered)), 'deny');
  new.while_waiting := coalesce(lower(btrim(new.while_waiting)), 'keep');
  new.updated_at := clock();
  new.created_at := coalesce(case tg_op when 'UPDATE' then old.created_at end, new.updated_at);

  if new.name is null or new.name !~ '^[a-z0-9][a-z0-9._-]{0,62}$' then
    raise exception 'an agent cannot be called %', coalesce(quote_literal(new.name), 'NULL')
      using errcode = 'LH040', hint = 'Use 1 to 63 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit.';
  elsif not exists (select from adapters a where a.name = new.adapter) then
    raise exception 'there is no adapter "%"', new.adapter
      using errcode = 'LH044', hint = 'There are ''codex'', ''codex-exec'', ''claude'', ''acp'', and ''command'': any program, prompt on stdin.';
  elsif coalesce(cardinality(new.command), 0) = 0 or array_position(new.command, null) is not null or btrim(new.command[1]) = '' then
    raise exception 'agent "%" has no command', new.name
      using errcode = 'LH041', hint = 'Give the program and its arguments as an array: ''{python3,agent.py}''.';
  elsif new.workspace is not null and left(new.workspace, 1) <> '/' then
    raise exception 'the workspace "%" is not an absolute path', new.workspace
      using errcode = 'LH043', hint = 'Begin it with a slash, or leave it NULL for a fresh directory for each run.';
  elsif new.status not in ('enabled', 'paused', 'pending_approval', 'retired') then
    raise exception 'an agent cannot be "%"', new.status
      using errcode = 'LH048', hint = 'The status is ''enabled'', ''paused'', ''pending_approval'' or ''retired''.';
  elsif array_position(new.launcher, null) is not null then
    raise exception 'the launcher of agent "%" contains a NULL', new.name
      using errcode = 'LH046', hint = 'It is an array of words put before the command: ''{nice,-n,10}''.';
  end if;
  bad := agent_env_mistake(new.env);
  if bad is not null then
    raise exception 'env of agent "%": %', new.name, bad
      using errcode = 'LH042', hint = 'Give one JSON object of strings: {"MODE": "fast"}. Names beginning with LEASEHOLD_ are ours.';
  end if;
  bad := agent_limits_mistake(new.limits);
  if bad is not null then
    raise exception 'limits of agent "%": %', new.name, bad
      using errcode = 'LH046',
            hint = 'Allowed are memory_max (bytes, from 1048576), pids_max (1 to 4194304) and cpu_weight (1 to 10000), each a whole number.';
  end if;
  bad := case
    when not new.private_config and (new.config_files <> '{}' or new.credential is not null)
      then 'config_files and credential go into a private configuration, and it has none'
    when left(new.credential, 1) <> '/' or new.credential ~ '[[:cntrl:]]' then 'the credential is not an absolute path'
    when new.credential_name is not null and new.credential is null then 'there is a credential_name, but no credential'
    when not is_name_below(new.credential_name) then 'credential_name is not the name of a file below a directory'
    when new.credential_lock not in ('run', 'copy') then 'credential_lock is neither "run" nor "copy"'
    when new.credential_wait is null or new.credential_wait < interval '0' or new.credential_wait > interval '1 hour'
      then 'credential_wait is not between 0 and an hour'
    when new.session_keep <= interval '0' or new.session_keep > interval '10 years' then 'session_keep is not above 0, or longer than 10 years'
    else agent_config_mistake(new.config_files) end;
  if bad is not null then
    raise exception 'configuration of agent "%": %', new.name, bad
      using errcode = 'LH124',
            hint = 'Set private_config; config_files is one JSON object of texts by name, {"config.toml": "..."}; credential is a file on the worker''s host.';
  end if;
  bad := case
    when new.max_running < 0 then 'max_running is below 0'
    when new.retry_backoff is null or new.retry_backoff < interval '0' then 'retry_backoff is missing or below 0'
    when new.retry_backoff_max is null or new.retry_backoff_max < new.retry_backoff then 'retry_backoff_max is missing or below retry_backoff'
    when new.stop_grace is null or new.stop_grace < interval '0' then 'stop_grace is missing or below 0'
    when new.total_timeout <= interval '0' then 'total_timeout is not above 0'
    when new.queue_timeout <= interval '0' then 'queue_timeout is not above 0'
    when new.spawn_timeout is null or new.spawn_timeout <= interval '0' then 'spawn_timeout is missing or not above 0'
    when new.first_output_timeout <= interval '0' then 'first_output_timeout is not above 0'
    when new.idle_timeout <= interval '0' then 'idle_timeout is not above 0'
    when new.tool_idle_timeout <= interval '0' then 'tool_idle_timeout is not above 0'
    when new.answer_timeout <= interval '0' then 'answer_timeout is not above 0'
    when new.on_unanswered not in ('deny', 'cancel', 'ask_again') then 'on_unanswered is not deny, cancel or ask_again'
    when new.while_waiting not in ('keep', 'release') then 'while_waiting is not keep or release'
    when new.linger_timeout is null or new.linger_timeout <= interval '0' then 'linger_timeout is missing or not above 0'
    when greatest(new.retry_backoff, new.retry_backoff_max, new.stop_grace, new.total_timeout, new.queue_timeout, new.spawn_timeout,
                  new.first_output_timeout, new.idle_timeout, new.tool_idle_timeout, new.linger_timeout, new.answer_timeout) > interval '10 years'
      then 'a duration is longer than 10 years'
    when new.output_head is null or new.output_head < 1 then 'output_head is missing or below 1 byte'
    when new.output_tail is null or new.output_tail < 1 then 'output_tail is missing or below 1 byte'
    when new.output_limit < 1 then 'output_limit is below 1 byte'
    when new.events_limit is null or new.events_limit < 1 then 'events_limit is missing or below 1'
    when new.artifact_limit is null or new.artifact_limit not between 1 and 104857600 then 'artifact_limit is not between 1 and 104857600 bytes'
    when not (new.budget_usd > 0 and new.budget_usd < 1e12) then 'budget_usd is not an amount of money above 0'
    when octet_length(new.account) > 200 then 'account is longer than 200 bytes'
  end;
  if bad is not null then
    raise exception 'agent "%": %', new.name, bad
      using errcode = 'LH045',
            hint = 'Durations are intervals such as ''90 seconds'', sizes are bytes. NULL means no limit for max_running, output_limit, '
                   'and the queue, first_output, idle, tool_idle and total timeouts.';
  end if;
  return new;
end $$;

create or replace function leasehold.agent_env_mistake(env jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  one record;
begin
  if jsonb_typeof(env) <> 'object' then
    return format('it is a JSON %s', jsonb_typeof(env));
  end if;
  for one in select key, value from jsonb_each(env) loop
    if one.key !~ '^[A-Za-z_][A-Za-z0-9_]*$' then
      return format('"%s" is not a name of a variable', one.key);
    elsif upper(one.key) like 'LEASEHOLD\_%' and one.key <> 'LEASEHOLD_ACP_MODE' then      -- that one is for its administrator to say
      return format('"%s" is set by Leasehold', one.key);
    elsif jsonb_typeof(one.value) <> 'string' then
      return format('the value of "%s" is a JSON %s', one.key, jsonb_typeof(one.value));
    end if;
  end loop;
  return null;
end $$;

-- "config.toml", ".gemini/settings.json": words of a path that cannot lead out of the directory.
create or replace function leasehold.is_name_below(name text) returns boolean
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select name ~ '^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,7}$' and name !~ '(^|/)\.{1,2}(/|$)' and octet_length(name) <= 200
$$;

create or replace function leasehold.agent_config_mistake(files jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  one record;
begin
  if jsonb_typeof(files) <> 'object' then
    return format('config_files is a JSON %s', jsonb_typeof(files));
  end if;
  if octet_length(files::text) > 262144 then
    return 'config_files have more than 262144 bytes together';
  end if;
  for one in select key, value from jsonb_each(files) loop
    if not is_name_below(one.key) then
      return format('"%s" is not the name of a file below a directory', left(one.key, 100));
    elsif jsonb_typeof(one.value) <> 'string' then
      return format('"%s" is a JSON %s, not text', one.key, jsonb_typeof(one.value));
    elsif octet_length(one.value #>> '{}') > 65536 then
      return format('"%s" has more than 65536 bytes', one.key);
    end if;
  end loop;
  return null;
end $$;

create or replace function leasehold.agent_limits_mistake(limits jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  allowed jsonb := '{"memory_max": [1048576, 999999999999999999], "pids_max": [1, 4194304], "cpu_weight": [1, 10000]}';
  one record;
begin
  if jsonb_typeof(limits) <> 'object' then
    return format('it is a JSON %s', jsonb_typeof(limits));
  end if;
  for one in select key, value, allowed -> key as bounds from jsonb_each(limits) loop
    if one.bounds is null then
      return format('there is no limit "%s"', one.key);
    elsif jsonb_typeof(one.value) <> 'number' or one.value::text !~ '^[0-9]{1,18}$'
          or one.value::text::int8 not between (one.bounds ->> 0)::int8 and (one.bounds ->> 1)::int8 then
      return format('"%s" is %s', one.key, one.value);
    end if;
  end loop;
  return null;
end $$;

-- An agent that live jobs name cannot go. The lock makes sure that no insert of such a job is under way.
create or replace function leasehold.agents_before_delete() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set lock_timeout = '2s'
as $$
declare
  live bigint;
begin
  begin
    lock table jobs in share mode;
  exception when lock_not_available then
    raise exception 'agent "%" cannot be deleted just now: somebody is writing jobs', old.name
      using errcode = 'LH026', hint = 'Try again, or pause it: SELECT leasehold.pause_agent(...).';
  end;
  select count(*) into live
    from jobs j
   where j.agent = old.name
     and j.status in ('queued', 'deferred', 'running', 'waiting');
  if live > 0 then
    raise exception 'agent "%" still has % job(s) to do', old.name, live
      using errcode = 'LH025', hint = 'Cancel them or let them end first; SELECT leasehold.pause_agent(...) stops new runs at once.';
  end if;
  return old;
end $$;

create or replace function leasehold.pause_agent(name text, reason text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update agents a
     set status = 'paused',
         status_reason = pause_agent.reason
   where a.name = lower(btrim(pause_agent.name))
     and a.status in ('enabled', 'paused');
  if not found then
    perform refuse_status(pause_agent.name);
  end if;
end $$;

create or replace function leasehold.resume_agent(name text) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update agents a
     set status = 'enabled',
         status_reason = null
   where a.name = lower(btrim(resume_agent.name))              -- the trigger on agents rings
     and a.status in ('enabled', 'paused');
  if not found then
    perform refuse_status(resume_agent.name);
  end if;
end $$;

-- A pause and its end are no way around an approval, and nobody comes back from retirement by accident.
create or replace function leasehold.refuse_status(name text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known agents;
begin
  select a.* into known from agents a where a.name = lower(btrim(refuse_status.name));
  if not found then
    perform refuse_unknown_agent(refuse_status.name);
  end if;
  perform refuse_agent(known.name, known.status);
end $$;

create or replace function leasehold.refuse_unknown_agent(name text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'there is no agent %', coalesce('"' || refuse_unknown_agent.name || '"', 'NULL')
    using errcode = 'LH024', hint = 'SELECT name FROM leasehold.agents lists them.';
end $$;

-- It is there, but not to be asked.
create or replace function leasehold.refuse_agent(name text, status text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  raise exception 'agent "%" is %', refuse_agent.name, case refuse_agent.status when 'retired' then 'retired' else 'not approved yet' end
    using errcode = 'LH062', hint = 'Ask another one; an administrator gives it another status: UPDATE leasehold.agents SET status = ''enabled'' ...';
end $$;
