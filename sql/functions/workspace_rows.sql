-- What rows of agents and jobs may say about workspaces. The triggers of their tables come first: agents.sql, jobs.sql.

create or replace function leasehold.agents_check_workspace() returns trigger
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  new.repository := nullif(btrim(new.repository), '');
  new.base_branch := nullif(btrim(new.base_branch), '');
  new.branch_prefix := btrim(coalesce(btrim(new.branch_prefix), 'leasehold'), '/');
  new.prepare := coalesce(new.prepare, '[]');
  new.keep_workspace := coalesce(lower(btrim(new.keep_workspace)), 'always');
  new.env_file_path := nullif(btrim(new.env_file_path), '');
  bad := case
    when new.repository is not null and repository_mistake(replace(new.repository, '{repository}', 'https://example.org/x')) is not null
         and repository_mistake(replace(new.repository, '{repository}', 'x')) is not null
      then 'repository: ' || repository_mistake(replace(new.repository, '{repository}', 'x'))
    when new.repository is not null and new.workspace is not null and position('{repository}' in new.repository) = 0
      then 'it has both a repository and a workspace'
    when new.base_branch is not null and branch_mistake(new.base_branch) is not null then 'base_branch: ' || branch_mistake(new.base_branch)
    when new.branch_prefix <> '' and branch_mistake(new.branch_prefix) is not null then 'branch_prefix: ' || branch_mistake(new.branch_prefix)
    when new.keep_workspace not in ('always', 'on_failure', 'never') then 'keep_workspace is not always, on_failure or never'
    when new.prepare_timeout is null or new.prepare_timeout <= interval '0' or new.prepare_timeout > interval '10 years'
      then 'prepare_timeout is missing, not above 0, or longer than 10 years'
    when env_file_mistake(new.env_file_path) is not null then env_file_mistake(new.env_file_path)
    when octet_length(new.env_file_text) > 32768 then 'env_file_text is longer than 32768 bytes'
    else prepare_mistake(new.prepare) end;
  if bad is not null then
    raise exception 'agent "%": %', new.name, bad
      using errcode = 'LH115',
            hint = 'repository is an URL or an absolute path, {repository} in it is the job''s; prepare is a JSON array of commands, '
                   'each an array of words: [["npm", "ci"]].';
  end if;
  return new;
end $$;

create or replace function leasehold.prepare_mistake(prepare jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when jsonb_typeof(prepare) <> 'array' then 'prepare is no JSON array'
    when jsonb_array_length(prepare) > 100 or octet_length(prepare::text) > 32768 then 'prepare has more than 100 commands or 32768 bytes'
    when exists (select
                   from jsonb_array_elements(prepare) one (command)
                  where jsonb_typeof(one.command) <> 'array' or one.command = '[]' or btrim(coalesce(one.command ->> 0, '')) = ''
                     or jsonb_path_exists(one.command, '$[*] ? (@.type() != "string")')) then 'a command of prepare is no array of words' end;
end $$;

create or replace function leasehold.jobs_check_workspace() returns trigger
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  new.branch := nullif(btrim(btrim(new.branch), '/'), '');
  new.base_branch := nullif(btrim(new.base_branch), '');
  new.env_file_path := nullif(btrim(new.env_file_path), '');
  new.use_repository := coalesce(new.use_repository, true);
  bad := case
    when new.branch is not null and branch_mistake(new.branch) is not null then 'branch: ' || branch_mistake(new.branch)
    when new.base_branch is not null and branch_mistake(new.base_branch) is not null then 'base_branch: ' || branch_mistake(new.base_branch)
    when new.branch = coalesce(new.base_branch, (select a.base_branch from agents a where a.name = new.agent))
      then 'branch: it is the one that the work begins from'
    else env_file_mistake(new.env_file_path) end;
  if bad is not null then
    raise exception 'a job cannot have this workspace: %', bad
      using errcode = 'LH116', hint = 'Leave branch out for one of its own, base_branch and env_file_path for those of its agent.';
  end if;
  if new.request_hash is not null then
    new.request_hash := sha256(new.request_hash || convert_to(jsonb_strip_nulls(jsonb_build_object(
      'branch', new.branch, 'base_branch', new.base_branch, 'use_repository', nullif(new.use_repository, true),
      'env_file_path', new.env_file_path, 'materialize_env_file', new.materialize_env_file))::text, 'UTF8'));
  end if;
  return new;
end $$;
