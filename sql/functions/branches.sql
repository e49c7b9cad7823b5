-- Names of branches, repositories and env files: which can be meant, and how a branch is called that nobody has named (S55 to S59).

-- What is wrong with the name of a branch, as git sees it; null: nothing.
create or replace function leasehold.branch_mistake(name text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when name is null or name = '' then 'it is empty'
    when octet_length(name) > 200 then 'it is longer than 200 bytes'
    when name ~ '[[:cntrl:][:space:]\\~^:?*\[]' then 'it has a space, a control character, or one of \ ~ ^ : ? * ['
    when name ~ '^-' then 'it begins with a dash'
    when name ~ '(^/|//|/$)' then 'it has a slash too many'
    when name ~ '(^|/)\.' then 'a part of it begins with a dot'
    when name ~ '\.(/|$)' then 'a part of it ends with a dot'
    when position('..' in name) > 0 or position('@{' in name) > 0 then 'it has .. or @{'
    when name ~ '\.lock(/|$)' then 'a part of it ends with .lock'
    when name in ('@', 'HEAD') or name ~ '^refs/' then 'git means something else by it'
  end;
end $$;

-- Lower case, runs of anything but letters and digits become a dash, none at either end, at most 36 characters; of nothing: task.
create or replace function leasehold.slugify(words text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return coalesce(nullif(btrim(left(btrim(regexp_replace(lower(left(words, 1000)) collate "C", '[^a-z0-9]+', '-', 'g'), '-'), 36), '-'), ''), 'task');
end $$;

-- The branch of a job that names none: the whole id is in it, so that no two have the same.
create or replace function leasehold.work_branch(prefix text, job bigint, prompt text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return concat_ws('/', nullif(btrim(prefix, '/'), ''), job, slugify(prompt));
end $$;

-- What is wrong with where a repository is said to be; null: nothing.
create or replace function leasehold.repository_mistake(repository text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when repository is null or btrim(repository) = '' then 'it is empty'
    when octet_length(repository) > 1000 then 'it is longer than 1000 bytes'
    when repository ~ '[[:cntrl:][:space:]]' then 'it has a space or a control character'
    when repository ~ '^-' then 'it begins with a dash'
    when repository ~ '^[A-Za-z0-9+.-]+::' then 'it names a transport that is a command'
    when repository ~ '^[a-z+]+://[^/@]*:[^/@]*@' then 'it has a password in it: a credential helper of the agents'' user is for that'
    when '..' = any (string_to_array(repository, '/')) then 'it leads upwards'
    when repository !~ '^(/|(https?|ssh|git)://[^/]|file:///|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^-:])' then
      'it is no absolute path, no https, http, ssh, git or file URL, and not user@host:path'
  end;
end $$;

-- The same as everybody may read it: who logs in at a web server may be a token, and a password is one. What stands there instead tells two
-- of them apart and tells nobody what they are.
create or replace function leasehold.shown_repository(repository text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  login text := coalesce(substring(repository from '^[Hh][Tt][Tt][Pp][Ss]?://([^/]*)@'), substring(repository from '^[^/]*://([^/]*:[^/]*)@'));
begin
  return case when login is null then repository
              else replace(repository, '//' || login || '@', '//***' || left(encode(sha256(convert_to(login, 'UTF8')), 'hex'), 8) || '@') end;
end $$;

-- What is wrong with the path of an env file; null: nothing.
create or replace function leasehold.env_file_mistake(path text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when left(path, 1) = '/' or position('..' in path) > 0 then 'Env file path must stay inside the repository.'
    when path !~ '^\.env(?:[./-][A-Za-z0-9_.-]+)?$' or octet_length(path) > 200 then 'Env file path must be a .env-style path.'
  end;
end $$;

-- Where the job's work is done; null: in no repository. What its agent says counts, with the job's own where that leaves room for it:
-- whoever inserts jobs chooses no address by himself.
create or replace function leasehold.repository_of(agent leasehold.agents, job leasehold.jobs) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case
    when not (job).use_repository or (agent).repository is null then null
    when position('{repository}' in (agent).repository) = 0 then (agent).repository
    when (job).repository is not null then replace((agent).repository, '{repository}', (job).repository) end;
end $$;
