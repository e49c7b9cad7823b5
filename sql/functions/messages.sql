-- The conversation in words: the prompt, what users say meanwhile, what the agent answers. A row a message, changed in place while it
-- streams. What an agent says comes through append_events(), for runs whose heads are locked; `mark` makes it count once.

-- The first so many bytes of a text, cut between two characters.
create or replace function leasehold.cut_text(said text, most bigint) returns text
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  raw bytea;
  past int := most;
begin
  if octet_length(said) <= most then
    return said;
  end if;
  raw := convert_to(said, 'UTF8');
  while past > 0 and get_byte(raw, past) & 192 = 128 loop            -- the byte behind the cut goes on with a character
    past := past - 1;
  end loop;
  return convert_from(substring(raw for past), 'UTF8');
end $$;

create or replace function leasehold.message_limit() returns int
language sql immutable
set search_path = pg_catalog
as $$
  select 1048576
$$;

-- What agents said, of a batch of events. A `message` with an id that is known replaces what was there: the whole is the truth, and
-- closes it. A `delta` adds to one that streams, or begins it; all of one message in one change. Words that an agent repeats as its
-- user's are no message: ours are there.
create or replace function leasehold.record_messages(
  runs bigint[], tokens uuid[], marks bigint[], kinds text[], messages text[], datas jsonb[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  now_ timestamptz := clock();
  most int := message_limit();
begin
  with said as materialized (
    select r.id as run, r.job_id, r.tenant, e.mark, e.nth, e.message, e.kind = 'message' as whole,
           coalesce(nullif(left(e.data ->> 'id', 200), ''), '@' || e.mark) as external_id,
           case when e.data ->> 'role' in ('user', 'system', 'tool') then e.data ->> 'role' else 'assistant' end as role,
           case when e.kind = 'delta' then 'streaming'
                when e.data ->> 'status' in ('streaming', 'failed') then e.data ->> 'status' else 'completed' end as status
      from unnest(record_messages.runs, tokens, marks, kinds, messages, datas)
           with ordinality e (run, token, mark, kind, message, data, nth)
     cross join lateral (select u.id, u.job_id, u.tenant
                           from leasehold.runs u
                          where u.id = e.run and u.token = e.token
                         offset 0) r
     cross join lateral (select h.job_id
                           from heads h
                          where h.job_id = r.job_id and h.run_id = e.run and h.run_token = e.token
                         offset 0) live
     where e.kind in ('message', 'delta')
       and e.message is not null
  ), fresh as materialized (
    select s.*, m.id as known
      from said s
      left join lateral (select k.id, k.mark
                           from leasehold.messages k
                          where k.run_id = s.run and k.external_id = s.external_id
                         offset 0) m on true
     where s.role <> 'user'
       and (m.id is null or s.mark is null or s.mark > m.mark)
  ), pieces as materialized (
    select f.run, f.job_id, f.tenant, f.known, f.external_id, min(f.nth) as nth, max(f.mark) as mark,
           (array_agg(f.role order by f.nth))[1] as role,
           (array_agg(f.status order by f.nth desc) filter (where f.whole))[1] as closes,
           (array_agg(f.message order by f.nth desc) filter (where f.whole))[1] as whole,
           string_agg(f.message, '' order by f.nth) filter (where not f.whole) as more
      from fresh f
     group by f.run, f.job_id, f.tenant, f.known, f.external_id, case when f.external_id is null then f.nth end
  ), grown as (
    update leasehold.messages m
       set content = case when octet_length(p.whole) <= most then p.whole
                          when p.whole is not null then cut_text(p.whole, most)
                          when m.truncated then m.content                                    -- untouched, it is not written again
                          when octet_length(m.content) + octet_length(p.more) <= most then m.content || p.more
                          else cut_text(m.content || p.more, most) end,
           status = coalesce(p.closes, 'streaming'),
           bytes = case when p.whole is not null then octet_length(p.whole) else m.bytes + octet_length(p.more) end,
           truncated = case when p.whole is not null then octet_length(p.whole) else m.bytes + octet_length(p.more) end > most,
           mark = greatest(m.mark, p.mark),
           updated_at = now_,
           version = nextval('leasehold.message_versions'),
           xid = pg_current_xact_id()
      from pieces p
     where m.id = p.known
       and m.id = any (array(select k.known from pieces k where k.known is not null))
       and (p.whole is not null or m.status = 'streaming')           -- what comes behind the whole is not part of it
  )
  insert into leasehold.messages (tenant, job_id, run_id, thread, external_id, source, role, content, status, truncated, bytes, mark,
                                  created_at, updated_at)
  select p.tenant, p.job_id, p.run, j.thread, p.external_id, 'agent', p.role, case when octet_length(p.said) > most then cut_text(p.said, most) else p.said end,
         coalesce(p.closes, 'streaming'), octet_length(p.said) > most, octet_length(p.said), coalesce(p.mark, -1), now_, now_
    from (select k.*, coalesce(k.whole, k.more) as said from pieces k where k.known is null) p
   cross join lateral (select k.thread from jobs k where k.id = p.job_id offset 0) j
   order by p.nth;
end $$;

-- The job's prompt is its first message, from its first start on; sooner, if something else is said before. A follow-up has it already:
-- the words of the turns that it came from.
create or replace function leasehold.say_prompt(run leasehold.runs) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
begin
  perform put_prompt((run).job_id, (run).id);
  update messages m
     set run_id = (run).id,
         content = case when m.turn_id is null then j.prompt else m.content end,      -- other asks may have joined it
         bytes = case when m.turn_id is null then octet_length(j.prompt) else m.bytes end,
         status = 'completed',
         updated_at = clock(),
         version = nextval('leasehold.message_versions'),
         xid = pg_current_xact_id()
    from jobs j
   where m.job_id = (run).job_id
     and j.id = (run).job_id
     and m.source = 'prompt'
     and m.status in ('queued', 'failed');
end $$;

create or replace function leasehold.put_prompt(job bigint, run bigint default null) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
begin
  insert into messages (tenant, job_id, run_id, thread, source, role, content, status, bytes)
  select j.tenant, j.id, put_prompt.run, j.thread, 'prompt', 'user', j.prompt,
         case when put_prompt.run is null then 'queued' else 'completed' end, octet_length(j.prompt)
    from jobs j
   where j.id = put_prompt.job
     and not exists (select from messages m where m.job_id = j.id and m.source = 'prompt')
      on conflict (job_id) where source = 'prompt' and turn_id is null do nothing;
end $$;

-- A job has ended: nobody will hear what is still kept for it. What becomes a follow-up goes there just afterwards.
create or replace function leasehold.jobs_leave_messages() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
begin
  update messages m
     set status = 'failed',
         updated_at = clock(),
         version = nextval('leasehold.message_versions'),
         xid = pg_current_xact_id()
   where m.job_id = new.id
     and m.status = 'queued';
  return null;
end $$;

-- The run has ended: nothing grows any more.
create or replace function leasehold.close_messages(run bigint, outcome text) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
begin
  update messages m
     set status = case close_messages.outcome when 'succeeded' then 'completed' else 'failed' end,
         updated_at = clock(),
         version = nextval('leasehold.message_versions'),
         xid = pg_current_xact_id()
   where m.run_id = close_messages.run
     and m.status = 'streaming';
end $$;

-- A message that is not the agent's word. Of one turn there is one. Answers its id.
create or replace function leasehold.add_message(
  job bigint, run bigint, role text, content text, turn bigint default null, status text default 'completed', metadata jsonb default '{}')
returns bigint
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
declare
  added bigint;
begin
  insert into messages (tenant, job_id, run_id, thread, turn_id, source, role, content, status, truncated, bytes, metadata)
  select j.tenant, j.id, add_message.run, j.thread, add_message.turn, case when add_message.turn is null then 'worker' else 'turn' end,
         add_message.role, cut_text(add_message.content, message_limit()), add_message.status,
         octet_length(add_message.content) > message_limit(), octet_length(add_message.content), coalesce(add_message.metadata, '{}')
    from jobs j
   where j.id = add_message.job
      on conflict (turn_id) where turn_id is not null do nothing
  returning id into added;
  return coalesce(added, (select m.id from messages m where m.turn_id = add_message.turn));
end $$;

-- Turns and the messages they are: queued until the agent has them. Those that became a follow-up are that job's prompt now; one that
-- has joined another job is said there.
create or replace function leasehold.turns_are_messages() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off                                           -- the indexes, whatever the statistics say
set enable_bitmapscan = off
set jit = off
as $$
begin
  if tg_op = 'INSERT' then
    perform put_prompt(new.job_id);
    perform add_message(new.job_id, new.run_id, 'user', new.text, new.id, 'queued', jsonb_build_object('turn', new.kind));
  elsif new.outcome = 'moved' then
    delete from messages m where m.turn_id = new.id;
  else
    update messages m
       set job_id = now_.job_id,
           run_id = case when now_.job_id = new.job_id then coalesce(new.run_id, m.run_id) end,
           thread = (select j.thread from jobs j where j.id = now_.job_id),
           source = case when now_.job_id = new.job_id then m.source else 'prompt' end,
           status = now_.status,
           updated_at = clock(),
           version = nextval('leasehold.message_versions'),
           xid = pg_current_xact_id()
      from (select coalesce(new.follow_up_job, new.job_id), case when new.state = 'pending' or new.follow_up_job is not null then 'queued'
                                                                 when new.acknowledged_at is not null then 'completed'
                                                                 else 'failed' end) now_ (job_id, status)
     where m.turn_id = new.id
       and m.job_id = new.job_id
       and (m.status <> now_.status or m.job_id <> now_.job_id or m.run_id is distinct from coalesce(new.run_id, m.run_id));
  end if;
  return null;
end $$;

-- All messages of all threads, each as it is now: order by id.
create or replace view leasehold.thread_messages with (security_invoker = true) as
select m.thread, m.id, m.tenant, m.job_id, m.run_id, m.role, m.content, m.status, m.truncated, m.metadata, m.created_at, m.updated_at
  from leasehold.messages m
 where m.thread is not null
 order by m.tenant, m.thread, m.id;

-- Messages of one job in the order in which they began.
create or replace function leasehold.list_messages(job bigint, after bigint default 0, rows_max int default 200)
returns table (id bigint, run_id bigint, role text, content text, status text, truncated boolean, metadata jsonb,
               created_at timestamptz, updated_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
  owner text := (select j.tenant from jobs j where j.id = list_messages.job);
begin
  if owner is null or not may_act_for(owner) then
    perform refuse_unknown_job(list_messages.job);
  elsif list_messages.after < 0 then
    perform refuse_cursor(list_messages.after::text);
  end if;
  return query
  select m.id, m.run_id, m.role, m.content, m.status, m.truncated, m.metadata, m.created_at, m.updated_at
    from leasehold.messages m
   where m.job_id = list_messages.job
     and m.id > coalesce(list_messages.after, 0)
   order by m.job_id, m.id
   limit page_size(rows_max, 200, 1000);
end $$;

-- Messages of all jobs of a thread, in the order in which they began. Of one that streams, follow message_changes().
create or replace function leasehold.list_thread_messages(
  thread text, after bigint default 0, rows_max int default 200, tenant text default null)
returns table (id bigint, job_id bigint, run_id bigint, role text, content text, status text, truncated boolean, metadata jsonb,
               created_at timestamptz, updated_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, leasehold, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
  owner text := tenant_asked(list_thread_messages.tenant);
begin
  if list_thread_messages.after < 0 then
    perform refuse_cursor(list_thread_messages.after::text);
  end if;
  return query
  select m.id, m.job_id, m.run_id, m.role, m.content, m.status, m.truncated, m.metadata, m.created_at, m.updated_at
    from leasehold.messages m
   where m.tenant = owner
     and m.thread = btrim(list_thread_messages.thread)
     and m.id > coalesce(list_thread_messages.after, 0)
   order by m.tenant, m.thread, m.id
   limit page_size(rows_max, 200, 1000);
end $$;

-- Messages that are new or have changed since the cursor, each as it is now, in an order that never skips a late commit; see
-- thread_changes(). Of one job, of one thread, or all that the caller may see.
create or replace function leasehold.message_changes(
  after text default null, rows_max int default 500, job bigint default null, thread text default null)
returns setof leasehold.changed_message
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  epoch_ int := cursor_epoch();
  part text[] := cursor_parts(coalesce(after, 'm' || epoch_ || '-0-0'), 'm([0-9]{1,9})-([0-9]{1,19})-([0-9]{1,18})');
begin
  if part[1]::int <> epoch_ then
    raise exception 'the cursor "%" is from before the database was restored', after
      using errcode = 'LH033', hint = 'Read again from the start (NULL): transaction numbers have begun anew.';
  end if;
  return query execute format($changes$
    select 'm%s-' || m.xid || '-' || m.version,
           m.id, m.tenant, m.job_id, m.run_id, m.thread, m.role, m.content, m.status, m.truncated, m.metadata, m.created_at, m.updated_at
      from leasehold.messages m
     where (m.xid, m.version) > ($1::xid8, $2::bigint)
       and m.xid < pg_snapshot_xmin(pg_current_snapshot()) %s %s
     order by m.xid, m.version
     limit $5 $changes$,
    epoch_,
    case when message_changes.job is not null then 'and m.job_id = $3' end,
    case when message_changes.thread is not null then 'and m.thread = $4' end)
  using part[2], part[3], message_changes.job, btrim(message_changes.thread), page_size(rows_max, 500, 10000);
end $$;
