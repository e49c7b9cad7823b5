-- What becomes of an interaction that nobody answers in its agent's answer_timeout: no (deny), the end of its job (cancel), or once more
-- to everybody who listens (ask_again).

-- Up to 100 whose time is over, and how long until the next one's is (null: none is known). What somebody holds just now is stepped over.
create or replace function leasehold.expire_interactions(worker bigint, token uuid)
returns table (interaction bigint, job_id bigint, what text, next_in interval)
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
#variable_conflict use_column
declare
  late record;
begin
  perform hold_worker(expire_interactions.worker, expire_interactions.token);
  for late in
    select o.id, o.job
      from (select l.id, j.id as job
              from (select i.id, i.job_id
                      from interactions i
                     where i.status = 'pending'
                       and i.expires_at <= clock()
                     order by i.expires_at, i.id
                    offset 0) l
             cross join lateral (select k.id from jobs k where k.id = l.job_id for update skip locked) j
             limit 100) o                                              -- of those that we hold: what is held by others fills no place
     order by o.job, o.id
  loop
    what := expire_interaction(late.id);
    if what is not null then
      interaction := late.id;
      job_id := late.job;
      return next;
    end if;
  end loop;
  interaction := null;
  job_id := null;
  what := 'next';
  next_in := (select greatest(i.expires_at - clock(), interval '0')
                from interactions i
               where i.status = 'pending'
                 and i.expires_at > clock()
               order by i.expires_at
               limit 1);
  return next;
end $$;

-- One whose job the caller has locked. Null: it is over already.
create or replace function leasehold.expire_interaction(interaction bigint) returns text
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  asked interactions;
  policy record;
  words text;
begin
  perform from heads h where h.job_id = (select i.job_id from interactions i where i.id = expire_interaction.interaction) for update;
  select i.* into asked from interactions i where i.id = expire_interaction.interaction and i.status = 'pending' and i.expires_at <= clock();
  if not found then
    return null;
  end if;
  select coalesce(a.on_unanswered, 'deny') as action, coalesce(a.answer_timeout, interval '1 hour') as patience into policy
    from runs r
    left join agents a on a.name = r.agent
   where r.id = asked.run_id;
  words := format('nobody answered in %s', spell(clock() - asked.asked_at));
  if policy.action = 'ask_again' then
    update interactions i
       set asked = i.asked + 1,
           expires_at = clock() + policy.patience
     where i.id = asked.id;
    perform note(asked.job_id, asked.tenant, asked.run_id, 'interaction_asked_again', words,
                 jsonb_build_object('interaction', asked.id, 'asked', asked.asked + 1));
    perform pg_notify('leasehold_interactions', '');
    return 'asked_again';
  end if;
  perform give_answer(asked, 'expired', decided(asked, 'deny', words), 'timeout');
  if policy.action = 'cancel' then
    perform cancel(asked.job_id, words || format(' (interaction %s)', asked.id));
    return 'cancel';
  end if;
  return 'deny';
end $$;
