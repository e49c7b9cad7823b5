-- Budgets of tenants and agents over a day, a week, a month (of UTC) or for good: counted as usage is recorded, kept by a hold.
-- A budget that is used up starts nothing new; what runs goes on, and only its own budget stops it.

create or replace function leasehold.period_start(period text, at timestamptz) returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case period when 'total' then '-infinity' else date_trunc(period, at, 'UTC') end;
end $$;

-- Null: it has no end.
create or replace function leasehold.period_end(period text, start timestamptz) returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return case when period <> 'total' then (start at time zone 'UTC' + ('1 ' || period)::interval) at time zone 'UTC' end;
end $$;

create or replace function leasehold.is_used_up(budget leasehold.budgets) returns boolean
language plpgsql stable
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  return (budget).since >= period_start((budget).period, clock())
     and ((budget).spent_usd >= (budget).amount_usd or ((budget).on_unpriced = 'hold' and (budget).unpriced > 0));
end $$;

-- What these rows of usage add to the budgets of their tenants and agents. The rows are locked in the order of their key.
create or replace function leasehold.charge_budgets(added leasehold.usage[]) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  due record;
  now_ timestamptz := clock();
  after_ budgets;
begin
  for due in
    with charges as materialized (
      select one.scope, one.name, coalesce(sum(a.cost_usd), 0) as cost, count(*) filter (where a.cost_usd is null) as unpriced
        from unnest(added) a
       cross join lateral (values ('tenant', a.tenant), ('agent', a.agent)) one (scope, name)
       group by one.scope, one.name
    )
    select b as budget, c.cost, c.unpriced
      from charges c
      join budgets b using (scope, name)
     order by b.scope, b.name, b.period
       for update of b
  loop
    update budgets b
       set since = greatest(b.since, period_start(b.period, now_)),
           spent_usd = due.cost + case when b.since >= period_start(b.period, now_) then b.spent_usd else 0 end,
           unpriced = due.unpriced + case when b.since >= period_start(b.period, now_) then b.unpriced else 0 end
     where (b.scope, b.name, b.period) = ((due.budget).scope, (due.budget).name, (due.budget).period)
    returning b.* into after_;
    if is_used_up(after_) and not is_used_up(due.budget) then
      perform hold_budget(after_);
    end if;
  end loop;
end $$;

create or replace function leasehold.hold_budget(budget leasehold.budgets) returns void
language plpgsql
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  perform hold((budget).scope, (budget).name, 'budget:' || (budget).period,
               until => period_end((budget).period, (budget).since),
               message => format('the budget of %s USD %s is used up: %s USD are spent%s', trim_scale((budget).amount_usd),
                                 case (budget).period when 'total' then 'in total' else 'a ' || (budget).period end,
                                 trim_scale((budget).spent_usd),
                                 case when (budget).unpriced > 0 then format(' and %s reports have no price', (budget).unpriced) else '' end));
end $$;

create or replace function leasehold.budgets_before_write() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  bad text;
begin
  new.name := case new.scope when 'agent' then lower(btrim(new.name)) else btrim(new.name) end;
  bad := case
    when new.scope is null or new.scope not in ('tenant', 'agent') then 'scope is neither ''tenant'' nor ''agent'''
    when new.name is null or new.name = '' then 'it names nobody'
    when new.period is null or new.period not in ('day', 'week', 'month', 'total') then 'period is not one of day, week, month, total'
    when new.amount_usd is null or not (new.amount_usd > 0 and new.amount_usd < 1e12) then 'amount_usd is not an amount of money above 0'
    when coalesce(new.on_unpriced, 'ignore') not in ('ignore', 'hold') then 'on_unpriced is neither ''ignore'' nor ''hold'''
    when tg_op = 'UPDATE' and (new.scope, new.name, new.period) is distinct from (old.scope, old.name, old.period)
      then 'scope, name and period stay as they are' end;
  if bad is not null then
    raise exception 'a budget cannot be so: %', bad
      using errcode = 'LH081', hint = 'INSERT INTO leasehold.budgets (scope, name, period, amount_usd) VALUES (''tenant'', ''acme'', ''month'', 100);';
  end if;
  new.on_unpriced := coalesce(new.on_unpriced, 'ignore');
  new.refuse := coalesce(new.refuse, false);
  if tg_op = 'INSERT' then
    new.since := period_start(new.period, clock());
    lock table usage in share mode;                    -- whoever records now has committed first, whoever records later finds this row
    select coalesce(sum(one.cost_usd), 0), coalesce(sum(one.unpriced), 0) into new.spent_usd, new.unpriced
      from (select u.cost_usd, (u.cost_usd is null)::int as unpriced
              from usage u
             where case new.scope when 'tenant' then u.tenant else u.agent end = new.name
               and u.at >= new.since
             union all
            select d.cost_usd, d.unpriced
              from usage_days d
             where case new.scope when 'tenant' then d.tenant else d.agent end = new.name
               and d.day >= (new.since at time zone 'UTC')::date) one;
  end if;
  return new;
end $$;

-- Raised, lowered, taken away: the hold follows.
create or replace function leasehold.budgets_after_write() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
begin
  if tg_op <> 'INSERT' and (tg_op = 'DELETE' or not is_used_up(new)) then
    perform lift(old.scope, old.name, 'budget:' || old.period);
  elsif is_used_up(new) then
    perform hold_budget(new);
  end if;
  return null;
end $$;

-- The budget that refuses this job; an idempotent repeat is not a new job.
create or replace function leasehold.jobs_within_budget() returns trigger
language plpgsql security definer
set search_path = pg_catalog, leasehold, pg_temp
as $$
declare
  over budgets;
begin
  select b.* into over
    from budgets b
   where b.refuse
     and (b.scope = 'tenant' and b.name = new.tenant or b.scope = 'agent' and b.name = new.agent)
     and is_used_up(b)
   limit 1;
  if found and (new.idempotency_key is null or not exists (
       select from jobs j where j.tenant = new.tenant and j.idempotency_key = new.idempotency_key)) then
    raise exception 'the budget of % "%" is used up: % of % USD (%)', over.scope, over.name, trim_scale(over.spent_usd),
                    trim_scale(over.amount_usd), over.period
      using errcode = 'LH080', hint = coalesce('It begins anew at ' || to_char(period_end(over.period, over.since) at time zone 'UTC',
                                                                              'YYYY-MM-DD HH24:MI "UTC"') || ', or an administrator raises it.',
                                               'An administrator may raise it.');
  end if;
  return new;
end $$;
