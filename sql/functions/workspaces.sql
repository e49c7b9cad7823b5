-- Where a run works, and who has it until when. A workspace is held by one run at a time; it is let go in the transaction in which the run
-- ends, which is when its processes are known to be gone. What is removed is removed by intent, see removals.sql.

-- The workspace of a live run: what its agent's row and its job ask for (P50), taken for this run. Answers what the worker needs to make
-- it ready; {"kind": "none"}: it works where its agent's row says, or in a directory of its own; {"kind": "busy"}: not now. Repeatable.
create or replace function leasehold.take_workspace(worker bigint, token uuid, run bigint, run_token uuid) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(take_workspace.worker, take_workspace.token, take_workspace.run, take_workspace.run_token);
  asked jobs := (select j from jobs j where j.id = current_.job_id);
  who agents := (select a from agents a where a.name = current_.agent);
  self workers := (select w from workers w where w.id = take_workspace.worker);
  address text := repository_of(who, asked);
  mistake text := repository_mistake(address);
  mine workspaces;
begin
  if address is null and (who.workspace is not null or (asked.session_key is null and who.adapter = 'command')) then
    return jsonb_build_object('kind', 'none');
  elsif address is not null and mistake is not null then
    return jsonb_build_object('kind', 'refused', 'message', format('repository %s: %s', quote_literal(left(shown_repository(address), 200)), mistake));
  end if;
  mine := place_workspace(self, who, asked, address);
  if mine.id is null or mine.status = 'quarantined' or mine.run_id <> current_.id then
    return jsonb_build_object('kind', case mine.kind when 'session' then 'none' else 'busy' end, 'message', why_taken(mine));
  end if;
  update workspaces w
     set run_id = current_.id,
         last_run = current_.id,
         job_id = current_.job_id,
         status = 'preparing',
         used_at = clock()
   where w.id = mine.id
     and w.run_id is distinct from current_.id;
  return workspace_plan(mine, who, asked);
end $$;

-- The row of this work on this host, locked; made if there is none. A named branch has one workspace, a conversation has one, and so has
-- any other job, over all its attempts and those of whoever goes on with it: a resumed agent finds what it knows by its path.
create or replace function leasehold.place_workspace(self leasehold.workers, who leasehold.agents, job leasehold.jobs, address text)
returns leasehold.workspaces
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  key_ text := workspace_key(job, address);
  shown text := shown_repository(address);                       -- the row is everybody's to read
  mine workspaces;
begin
  for turn in 1..2 loop
    select w.* into mine
      from workspaces w
     where w.host_id = (self).host_id
       and w.keeper_id = (self).keeper_id
       and w.tenant = (job).tenant
       and w.agent = (who).name
       and coalesce(w.repository, '') in (coalesce(shown, ''), coalesce(address, ''))
       and w.key = key_
       and w.status <> 'removed'
       for update;
    exit when found;
    insert into workspaces (tenant, host_id, keeper_id, kind, source, agent, key, repository, branch, base, job_id, status)
    values ((job).tenant, (self).host_id, (self).keeper_id, case when address is null then 'session' else 'repository' end,
            case when address is null then 'session' when position('{repository}' in (who).repository) > 0 then 'job_repository'
                 else 'agent_repository' end,
            (who).name, key_, shown,
            case when address is not null then coalesce((job).branch, work_branch((who).branch_prefix, (job).id, (job).prompt)) end,
            case when address is not null then coalesce((job).base_branch, (who).base_branch) end, (job).id, 'free')
        on conflict do nothing
    returning * into mine;
    if found then
      mine.repository := address;
      update workspaces w set path = path_of_workspace(mine) where w.id = mine.id returning w.* into mine;
      exit;
    end if;
  end loop;
  if mine.id is null then                                      -- another agent has a workspace of that very branch
    select w.* into mine
      from workspaces w
     where w.host_id = (self).host_id
       and w.keeper_id = (self).keeper_id
       and w.tenant = (job).tenant
       and w.repository in (shown, address)
       and w.branch = (job).branch
       and w.status <> 'removed'
       for update;
  end if;
  return mine;
end $$;

create or replace function leasehold.workspace_key(job leasehold.jobs, address text) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when address is not null and (job).branch is not null then 'branch:' || (job).branch
              when (job).session_key ~ '^job:[0-9]+$' then (job).session_key
              else coalesce('session:' || (job).session_key, 'job:' || (job).id) end;
end $$;

-- Below the state directory. Full numbers and digests: half of one may be another's.
create or replace function leasehold.path_of_workspace(workspace leasehold.workspaces) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case (workspace).kind
    when 'repository' then home_of_repository((workspace).tenant, (workspace).repository) || '/trees/' || (workspace).id
    else 'workspaces/conversations/' || (workspace).id end;
end $$;

-- What the worktrees of a tenant's repository share on a host.
create or replace function leasehold.home_of_repository(tenant text, repository text) returns text
language sql immutable
set search_path = pg_catalog
as $$
  select 'workspaces/' || encode(sha256(convert_to(tenant || e'\x1f' || repository, 'UTF8')), 'hex')
$$;

-- What the worker is to make ready. `gone`: directories beside it that are wanted gone and may still be there. Their owner is the agents'
-- user, so whoever works beside them as that user removes what a daemon of another user could not.
create or replace function leasehold.workspace_plan(workspace leasehold.workspaces, who leasehold.agents, job leasehold.jobs) returns jsonb
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  env_path text := coalesce((job).env_file_path, (who).env_file_path);
  beside text := regexp_replace((workspace).path, '[^/]+$', '');
begin
  return jsonb_build_object(
      'kind', (workspace).kind, 'source', (workspace).source, 'workspace', (workspace).id, 'path', (workspace).path,
      'gone', (select coalesce(jsonb_agg(m.path order by m.path), '[]')
                 from (select r.path
                         from removals r
                        where r.host_id = (workspace).host_id
                          and r.keeper_id = (workspace).keeper_id
                          and r.done_at is null
                          and r.what = 'workspace'
                          and starts_with(r.path, beside)
                        limit 50) m))
    || case when (workspace).kind = 'repository' then jsonb_build_object(
      'repository', repository_of(who, job), 'home', regexp_replace((workspace).path, '/trees/[^/]*$', ''),
      'branch', (workspace).branch, 'base', (workspace).base, 'named', (workspace).key like 'branch:%',
      'prepare', (who).prepare, 'prepare_timeout', extract(epoch from (who).prepare_timeout),
      'env_file', case when env_path is not null and (who).env_file_text is not null
                            and coalesce((job).materialize_env_file, (who).materialize_env_file)
                       then jsonb_build_object('path', env_path, 'text', (who).env_file_text) end) else '{}' end;
end $$;

-- What became of the run's workspace: {branch, base, base_commit, head_commit, dirty}, which files it changed, and the diff. Repeatable.
create or replace function leasehold.report_workspace(
  worker bigint, token uuid, run bigint, run_token uuid, facts jsonb, changes jsonb default null, diff text default null) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  current_ runs := hold_run(report_workspace.worker, report_workspace.token, report_workspace.run, report_workspace.run_token);
  mine workspaces;
begin
  update workspaces w
     set base = coalesce(left(facts ->> 'base', 200), w.base),
         base_commit = coalesce(left(facts ->> 'base_commit', 64), w.base_commit),
         head_commit = coalesce(left(facts ->> 'head_commit', 64), w.head_commit),
         dirty = coalesce((facts -> 'dirty')::text = 'true', w.dirty),
         status = case w.status when 'preparing' then 'in_use' else w.status end
   where w.run_id = current_.id
  returning w.* into mine;
  if mine.id is null or changes is null then
    return;
  end if;
  if jsonb_array_length(changes) > 0 then
    perform record_changes(worker, token, run, run_token, changes);
  end if;
  if diff <> '' then
    perform add_artifact(worker, token, run, run_token, 'diff', 'Changes on ' || coalesce(left(facts ->> 'branch', 200), mine.branch, 'no branch'),
                         diff, 'text/x-diff', 'final_diff');
  end if;
end $$;

-- A run has ended: its processes are gone, and it lets go. If they could not be killed, nobody else comes in.
create or replace function leasehold.runs_release_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update workspaces w
     set run_id = case when new.status <> 'ended' then w.run_id end,
         status = case when new.status <> 'ended' or new.reason = 'unkillable' then 'quarantined' else 'free' end,
         used_at = clock()
   where w.run_id = new.id;
  return null;
end $$;

-- A job has ended: its worktree stays or goes, as its agent's row says, and a directory of its own goes; unless another job goes on with
-- it. What belongs to a conversation, or to a branch, belongs to more than the job.
create or replace function leasehold.jobs_leave_workspace() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform remove_workspaces(array(
    select w.id
      from workspaces w
      join agents a
        on a.name = w.agent
     where w.job_id = new.id
       and w.key in ('job:' || new.id, new.session_key)
       and starts_with(w.key, 'job:')
       and w.status = 'free'
       and (w.kind = 'session' or a.keep_workspace = 'never' or a.keep_workspace = 'on_failure' and new.status = 'succeeded')
       and not exists (select from turns t where t.job_id = new.id and t.outcome = 'follow_up')
       and holder_of(w.tenant, conversation_key(w.agent, w.key)) is null));
  return null;
end $$;

-- These go; the directory by intent. Its id is never given again, so nobody can come to be in it meanwhile.
create or replace function leasehold.remove_workspaces(gone bigint[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform want_removal(w.host_id, w.keeper_id, 'workspace', w.path)
     from workspaces w
    where w.id = any (remove_workspaces.gone);
  update workspaces w
     set status = 'removed',
         run_id = null,
         removed_at = clock()
   where w.id = any (remove_workspaces.gone);
end $$;

-- Remove one by hand, a quarantined one as well: whoever does it has looked. Its branch stays in the clone of its host.
create or replace function leasehold.remove_workspace(workspace bigint) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  mine workspaces;
begin
  select w.* into mine from workspaces w where w.id = remove_workspace.workspace for update;
  if not found or not may_act_for(mine.tenant) then
    raise exception 'there is no workspace %', coalesce(workspace::text, 'NULL')
      using errcode = 'LH117', hint = 'SELECT id, path, status FROM leasehold.workspaces lists those you may see.';
  elsif exists (select from runs r where r.id = mine.run_id and r.ended_at is null) then
    raise exception 'workspace % is in use by run %', mine.id, mine.run_id
      using errcode = 'LH118', hint = 'Wait for its end, or cancel its job.';
  elsif mine.status <> 'removed' then
    perform remove_workspaces(array[mine.id]);
  end if;
  return 'removed';
end $$;

-- Those that nobody has used for so long; and rows whose directory went so long ago.
create or replace function leasehold.sweep_workspaces(rule leasehold.retention) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  past timestamptz := clock() - (rule).keep;
  old bigint[] := array(select w.id from workspaces w where w.status = 'free' and w.used_at < past order by w.used_at
                         limit (rule).batch for update skip locked);
  gone bigint;
begin
  perform remove_workspaces(old);
  delete from leasehold.workspaces w
   where w.id = any (array(select k.id from leasehold.workspaces k where k.status = 'removed' and k.removed_at < past
                            order by k.removed_at limit (rule).batch for update skip locked));
  get diagnostics gone = row_count;
  return gone + cardinality(old);
end $$;
