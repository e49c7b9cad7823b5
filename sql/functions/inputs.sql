-- What a worker carries to its live agents: turns and answers that they have not been given yet.

-- In the order in which they came: turns by their numbers, whatever the clock has done meanwhile, and answers by the clock among them.
-- `again`: those that were given to these runs before, too; who has built a conversation anew from its output needs them all, and the
-- keeper gives nothing twice.
create or replace function leasehold.read_inputs(worker bigint, token uuid, runs bigint[], again boolean default false)
returns table (run_id bigint, kind text, id bigint, text text, data jsonb)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
begin
  perform know_worker(read_inputs.worker, read_inputs.token);
  return query
  with live as materialized (
    select r.id, r.job_id
      from (select distinct n.id from unnest(read_inputs.runs) n (id)) wanted
     cross join lateral (select k.id, k.job_id, k.worker_id, k.ended_at from leasehold.runs k where k.id = wanted.id offset 0) r
     where r.worker_id = read_inputs.worker
       and r.ended_at is null
  )
  select one.run, one.kind, one.id, one.text, one.data
    from (select l.id as run, t.kind, t.id, t.text, '{}'::jsonb as data, t.seq,
                 max(t.created_at) over (partition by l.id order by t.seq) as at      -- a later turn is never said earlier
            from live l
           cross join lateral (select k.*
                                 from leasehold.turns k
                                where k.job_id = l.job_id
                                  and k.state in ('pending', 'acknowledged')
                                  and k.deliverable
                               offset 0) t
           where t.state = 'pending'
              or (read_inputs.again and t.run_id = l.id)
          union all
          select l.id, 'answer', i.id, null, i.response || jsonb_build_object('request', i.external_id), 0, i.answered_at
            from live l
           cross join lateral (select k.* from leasehold.interactions k where k.run_id = l.id and k.response is not null offset 0) i
           where i.to_deliver
              or read_inputs.again) one
   order by one.run, one.at, one.seq, one.id;
end $$;

-- The keepers of these runs have these. Repeatable; what is not for a live run of this worker (any more) is passed over.
create or replace function leasehold.take_inputs(worker bigint, token uuid, runs bigint[], kinds text[], ids bigint[]) returns void
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  taken record;
begin
  perform know_worker(take_inputs.worker, take_inputs.token);
  if cardinality(runs) is distinct from cardinality(kinds) or cardinality(runs) is distinct from cardinality(ids) then
    perform refuse_arguments('the arrays of take_inputs differ in length');
  end if;
  perform from heads h                                                    -- ascending, as everywhere
    where h.job_id = any (array(select r.job_id from runs r where r.id = any (take_inputs.runs) and r.ended_at is null))
    order by h.job_id
      for update;
  for taken in
    select e.kind, e.id, r.run
      from unnest(take_inputs.runs, kinds, ids) with ordinality e (run, kind, id, nth)
     cross join lateral (select k as run from runs k where k.id = e.run and k.worker_id = take_inputs.worker offset 0) r
     where is_heard(r.run)
     order by e.nth
  loop
    if taken.kind = 'answer' then
      update interactions i
         set delivered_at = clock(),
             to_deliver = false
       where i.id = taken.id
         and i.run_id = (taken.run).id
         and i.to_deliver;
    else
      perform acknowledge_turn(taken.run, taken.id);
    end if;
  end loop;
end $$;

-- What was taken back meanwhile was given to the agent all the same: its row says when. What the agent has refused meanwhile it has not
-- heard.
create or replace function leasehold.acknowledge_turn(run leasehold.runs, turn bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  known turns;
begin
  select t.* into known
    from turns t
   where t.id = acknowledge_turn.turn
     and t.job_id = (run).job_id
     and case t.state when 'pending' then t.deliverable else t.acknowledged_at is null end;
  if not found then
    return;
  end if;
  update turns t
     set state = case t.state when 'pending' then 'acknowledged' else t.state end,
         run_id = (run).id,
         acknowledged_at = clock()
   where t.id = known.id;
  perform note((run).job_id, (run).tenant, (run).id, 'turn_acknowledged', null,
               jsonb_build_object('turn', known.id, 'turn_kind', known.kind, 'turn_seq', known.seq));
end $$;
