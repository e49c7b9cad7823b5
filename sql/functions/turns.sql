-- What is said to the agent of a job that is not over: a steer into its work, an interrupt of it, another prompt behind it. Each is a
-- row at once, numbered per job, delivered when an agent can take it (inputs.sql), and never silently absorbed (turns_end.sql).
--
-- Turns of a job are written under the locks of its row and its head, as everything about it.

create or replace function leasehold.steer(job bigint, text text, idempotency_key text default null, actor text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return make_turn(steer.job, 'steer', steer.text, steer.idempotency_key, steer.actor);
end $$;

create or replace function leasehold.prompt(job bigint, text text, idempotency_key text default null, actor text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return make_turn(prompt.job, 'prompt', prompt.text, prompt.idempotency_key, prompt.actor);
end $$;

create or replace function leasehold.interrupt(job bigint, reason text default null, idempotency_key text default null, actor text default null)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return make_turn(interrupt.job, 'interrupt', interrupt.reason, interrupt.idempotency_key, interrupt.actor);
end $$;

-- The turn, or the one that the same request with the same key has made before: that one is answered even if the job has ended since.
create or replace function leasehold.make_turn(job bigint, kind text, text text, idempotency_key text, actor text) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  wanted jobs;
  words text := nullif(btrim(make_turn.text, e' \t\r\n'), '');
  hash bytea := sha256(convert_to(jsonb_build_object('version', 1, 'kind', make_turn.kind, 'text', words)::text, 'UTF8'));
  known turns;
begin
  select j.* into wanted from jobs j where j.id = make_turn.job for update;
  if not found or not may_act_for(wanted.tenant) then
    perform refuse_unknown_job(make_turn.job);
  end if;
  perform check_turn(make_turn.kind, words, make_turn.idempotency_key, make_turn.actor);
  select t.* into known
    from turns t
   where t.job_id = wanted.id
     and t.idempotency_key = make_turn.idempotency_key;
  if not found then
    perform check_turn_now(wanted, make_turn.kind, words);
    return add_turn(wanted, make_turn.kind, words, make_turn.idempotency_key, hash,
                    coalesce(nullif(btrim(make_turn.actor), ''), session_user));
  elsif known.payload_hash <> hash then
    raise exception 'idempotency key "%" was used for another turn of job % (turn %)', make_turn.idempotency_key, wanted.id, known.id
      using errcode = 'LH103', detail = format('turn_id=%s', known.id), hint = 'Use a new key, or repeat exactly the same request.';
  end if;
  return known.id;
end $$;

create or replace function leasehold.check_turn(kind text, words text, idempotency_key text, actor text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if words is null and kind <> 'interrupt' then
    raise exception 'a % needs a text', kind
      using errcode = 'LH100', hint = format('SELECT leasehold.%s(42, ''also update the docs'');', kind);
  elsif octet_length(words) > 262144 then
    raise exception 'the text has % bytes, the limit is 262144', octet_length(words)
      using errcode = 'LH100', hint = 'Put long input into a file that the agent can read, and say its path.';
  elsif btrim(idempotency_key) = '' or octet_length(idempotency_key) > 500 or octet_length(actor) > 500 then
    raise exception 'its idempotency_key is blank, or that or its actor is longer than 500 bytes'
      using errcode = 'LH100', hint = 'Leave them out (NULL) for none, and for your login.';
  end if;
end $$;

-- Is there anybody who could hear it, now or later?
create or replace function leasehold.check_turn_now(job leasehold.jobs, kind text, words text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if job.finished_at is not null then
    raise exception 'job % has already ended: %', job.id, concat_ws(', ', job.status, nullif(job.reason, job.status))
      using errcode = 'LH101', detail = format('status=%s reason=%s', job.status, job.reason),
            hint = format('SELECT * FROM leasehold.enqueue(agent => %L, prompt => ''...'', session_key => %L); goes on with its conversation.',
                          job.agent, coalesce(job.session_key, 'job:' || job.id));
  elsif job.cancel_requested_at is not null then
    raise exception 'job % is being cancelled', job.id
      using errcode = 'LH101', hint = 'Nothing more is said to its agent. When it has ended, SELECT leasehold.retry(...) gives it another attempt.';
  elsif kind = 'interrupt' and job.status not in ('running', 'waiting') then
    raise exception 'job % is %: there is nothing to interrupt', job.id, job.status
      using errcode = 'LH102', hint = format('SELECT leasehold.cancel(%s); ends it before it begins.', job.id);
  elsif kind = 'interrupt' and not takes(job.agent, kind) then
    raise exception 'agent "%" cannot be interrupted: its adapter is "%"', job.agent, adapter_of(job.agent)
      using errcode = 'LH102', hint = format('SELECT leasehold.cancel(%s); stops the whole run.', job.id);
  elsif is_too_much(job.id, octet_length(words)) then
    raise exception 'more than 1000000 bytes wait for the agent of job %', job.id
      using errcode = 'LH109', hint = 'Wait until it has heard some of it, or SELECT leasehold.cancel_turn(...).';
  end if;
end $$;

-- Would so many bytes more be more than one job could be asked for, if nobody hears what waits?
create or replace function leasehold.is_too_much(job bigint, more bigint) returns boolean
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return is_too_much.more + open_bytes(is_too_much.job) > 1000000;
end $$;

create or replace function leasehold.open_bytes(job bigint) returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (select coalesce(sum(octet_length(t.text) + 2), 0)
            from turns t
           where t.job_id = open_bytes.job
             and t.state in ('pending', 'acknowledged'));
end $$;

-- The next turn of a job that the caller has locked; its worker hears of it at once.
create or replace function leasehold.add_turn(job leasehold.jobs, kind text, words text, idempotency_key text, hash bytea, actor text)
returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  made turns;
begin
  perform from heads h where h.job_id = job.id for update;
  insert into turns as t (tenant, job_id, seq, kind, text, actor, idempotency_key, payload_hash, deliverable)
  values (job.tenant, job.id, coalesce((select max(k.seq) from turns k where k.job_id = add_turn.job.id), 0) + 1, add_turn.kind, words,
          add_turn.actor, add_turn.idempotency_key, hash, takes(job.agent, add_turn.kind))
  returning t.* into made;
  if not made.deliverable then
    update turns t
       set why = format('agent "%s" cannot be %s: this becomes a job of its own when this one is over', job.agent,
                        case made.kind when 'steer' then 'steered' else 'asked more while it works' end)
     where t.id = made.id;
  end if;
  perform note(job.id, job.tenant, null, 'turn_created', left(words, 200),
               jsonb_build_object('turn', made.id, 'turn_kind', made.kind, 'turn_seq', made.seq, 'by', made.actor, 'deliverable', made.deliverable));
  if made.deliverable then
    perform ring_worker_of(job.id);
  end if;
  return made.id;
end $$;

-- As cancel() does: the renewal would say so, this is faster. Nobody is rung for a job that does not run.
create or replace function leasehold.ring_worker_of(job bigint) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform pg_notify(format('leasehold_worker_%s', r.worker_id), '')
     from runs r
    where r.job_id = ring_worker_of.job
      and r.ended_at is null;
end $$;

-- Take a turn back. What an agent has been given it has heard: then only its row says so. Answers the turn's state; one that is over stays as it is.
create or replace function leasehold.cancel_turn(turn bigint, reason text default null) returns text
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  job jobs;
  known turns;
begin
  select j.* into job
    from jobs j
   where j.id = (select t.job_id from turns t where t.id = cancel_turn.turn)
     for update;
  if not found or not may_act_for(job.tenant) then
    raise exception 'there is no turn %', coalesce(cancel_turn.turn::text, 'NULL')
      using errcode = 'LH104', hint = 'SELECT id, state FROM leasehold.turns WHERE job_id = ... lists those you may see.';
  end if;
  perform from heads h where h.job_id = job.id for update;
  select t.* into strict known from turns t where t.id = cancel_turn.turn;
  if known.ended_at is null then
    perform end_turn(known, 'cancelled', null, coalesce(nullif(btrim(cancel_turn.reason), ''), 'it was taken back'));
    return 'cancelled';
  end if;
  return known.state;
end $$;

-- End a turn whose job and head the caller has locked.
create or replace function leasehold.end_turn(turn leasehold.turns, state text, outcome text, why text, follow_up bigint default null)
returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  update turns t
     set state = end_turn.state,
         outcome = end_turn.outcome,
         why = end_turn.why,
         follow_up_job = end_turn.follow_up,
         ended_at = clock()
   where t.id = turn.id;
  perform note(turn.job_id, turn.tenant, turn.run_id, 'turn_ended', end_turn.why,
               jsonb_strip_nulls(jsonb_build_object(
                 'turn', turn.id, 'turn_kind', turn.kind, 'state', end_turn.state, 'outcome', end_turn.outcome, 'follow_up_job', follow_up)),
               case when end_turn.outcome = 'done' then 'info' else 'warning' end);
end $$;
